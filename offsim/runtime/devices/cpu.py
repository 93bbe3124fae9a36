"""A CPU in the place of a device: its memory has the slots, and a worker decodes into them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from offsim.codec import Blob, Codec, decode
from offsim.codec.expert import ExpertBlob
from offsim.runtime.devices.base import Carrier, CopySource
from offsim.runtime.link import Bytes, Link
from offsim.runtime.store import ExpertStore


class Cpu:
    """The CPU that the program runs on; it has every codec."""

    name = "cpu"
    place = torch.device("cpu")
    now = staticmethod(time.perf_counter)

    def check(self, codec: Codec) -> None:
        """Nothing is refused."""

    def hold(self, store: ExpertStore) -> ExpertStore:
        """The store itself."""
        return store

    def slots(self, count: int, values: int) -> torch.Tensor:
        """[count, values] float32."""
        # Written to once, so that no load pays for its memory being given out.
        return torch.empty(count, values).zero_()

    def link(self, bytes_per_s: float | None) -> Carrier:
        """A copy, or a wait."""
        return Link(bytes_per_s)

    def memories(self, nbytes: int) -> Mapping[str, CopySource]:
        """All host memory is of one kind."""
        return {}

    def unpack(
        self, blob: ExpertBlob, parts: Sequence[Bytes], slot: torch.Tensor, *, decoded: bool
    ) -> None:
        """Decode in the calling thread."""
        unpack(blob, parts, slot, decoded=decoded)

    @contextmanager
    def hosting(self, model: PreTrainedModel, *, experts: bool) -> Iterator[None]:
        """The model is there."""
        yield

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The calling thread computes by itself."""
        yield

    def finish(self) -> None:
        """Whoever asks for something does it."""

    def __str__(self) -> str:
        return "the CPU in the place of a device"


def unpack(blob: ExpertBlob, parts: Sequence[Bytes], slot: torch.Tensor, *, decoded: bool) -> None:
    """Fill a slot [values] float32 from bytes in host memory.

    Args:
        blob: of the expert, for its headers.
        parts: payloads, or, where the host decoded, the weights in their stored dtype, as bytes.
        slot: overwritten: gate, up, down.
        decoded: which of the two `parts` are.
    """
    at = 0
    for matrix, part in zip(blob.blobs, parts, strict=True):
        if decoded:
            weights = torch.from_numpy(part).view(matrix.torch_dtype)
        else:
            weights = decode(Blob(matrix.header, part.data)).view(-1)
        slot[at : at + matrix.count].copy_(weights)
        at += matrix.count
