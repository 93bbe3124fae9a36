"""What a real run needs of the device that computes experts, and nothing more.

Each stage of a load has threads of its own (`offsim.runtime.stations`), on any device. A thread
asks the device for one thing, and waits until it is done; the device does it on its own engines,
and says when it began and ended, if it knows better than the thread that waits.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from transformers import PreTrainedModel

from offsim.codec import Codec
from offsim.codec.expert import ExpertBlob
from offsim.runtime.link import Bytes
from offsim.runtime.store import ExpertStore

Arrived: TypeAlias = Any
"""[bytes] uint8 on a device: an array on the CPU, a tensor on CUDA. Only its device reads them."""
Stamps = tuple[float, float]
"""When something began and ended, s on the run's clock, which is `time.perf_counter`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An expert that a device keeps as a blob.

    Attributes:
        headers: of its matrices, with payloads of no bytes.
        parts: the payloads on the device.
    """

    headers: ExpertBlob
    parts: Sequence[Arrived]


@dataclass(frozen=True, slots=True)
class CopySource:
    """Host memory of one kind, and plain copies from it to a device.

    Attributes:
        memory: [bytes] uint8 of that kind.
        copy: copies arrays [bytes] uint8 of it, waits until they are there, and says when that
            began and ended; several threads may copy side by side.
    """

    memory: Bytes
    copy: Callable[[Sequence[Bytes]], Stamps]


class Carrier(Protocol):
    """A link from host memory to a device; several threads may carry side by side.

    Attributes:
        bytes_per_s: its pace; None for as fast as it is.
    """

    @property
    def bytes_per_s(self) -> float | None:
        """Its pace; None for as fast as it is."""

    def carry(
        self, parts: Sequence[Bytes], since: float = math.inf
    ) -> tuple[Sequence[Arrived], Stamps | None]:
        """Carry arrays [bytes] uint8, and wait until they are there.

        Args:
            parts: what is carried.
            since: when they began to wait, s on the run's clock; not before now by default.

        Returns:
            What has arrived; and when, or None where the thread that waits knows it best.
        """

    def room(self, parts: Sequence[Bytes]) -> Sequence[Arrived]:
        """Where arrays [bytes] uint8 arrive that are carried in chunks."""

    def carry_chunk(
        self,
        parts: Sequence[Bytes],
        into: Sequence[Arrived],
        begin: int,
        end: int,
        since: float = math.inf,
    ) -> Stamps | None:
        """Carry one chunk of arrays [bytes] uint8 that are thought of as one, and wait for it.

        Args:
            parts: what is carried.
            into: the `room` for them.
            begin: first byte of the chunk, counted over all parts.
            end: first byte that no longer belongs to it.
            since: as for `carry`.

        Returns:
            When, or None where the thread that waits knows it best.
        """


class Device(Protocol):
    """Memory for experts, a link to it, a decoder there, and what computes.

    Its text says what it is, for people.

    Attributes:
        name: how users write it.
        place: where torch has the tensors that it computes with.
    """

    @property
    def name(self) -> str:
        """How users write it."""

    @property
    def place(self) -> torch.device:
        """Where torch has the tensors that it computes with."""

    def check(self, codec: Codec) -> None:
        """Refuse a codec whose blobs it cannot decode.

        Raises:
            InputError: the codec decodes on the device, and not on this one.
        """

    def hold(self, store: ExpertStore) -> ExpertStore:
        """The same experts in host memory that the link can carry from at full speed.

        Raises:
            InputError: there is not so much of it.
        """

    def slots(self, count: int, values: int) -> torch.Tensor:
        """Memory for experts, [count, values] float32, written to once.

        Raises:
            InputError: there is not so much of it.
        """

    def link(self, bytes_per_s: float | None) -> Carrier:
        """The link to it.

        Args:
            bytes_per_s: pace; None for as fast as it is.
        """

    def memories(self, nbytes: int) -> Mapping[str, CopySource]:
        """Kinds of host memory from which copies to it differ, by their names.

        Args:
            nbytes: of each that is made ready.

        Returns:
            That from which runs carry first; nothing where there is one kind only.

        Raises:
            InputError: there is not so much of one.
        """

    def unpack(
        self, blob: ExpertBlob, parts: Sequence[Arrived], slot: torch.Tensor, *, decoded: bool
    ) -> Stamps | None:
        """Fill a slot from what the link brought, and wait until it is filled.

        Args:
            blob: of the expert, for its headers.
            parts: payloads, or, where the host decoded, the weights in their stored dtype.
            slot: [values] float32, overwritten: gate, up, down.
            decoded: which of the two `parts` are.

        Returns:
            When, or None where the thread that waits knows it best.

        Raises:
            CodecError: a payload is not a stream of its codec.
        """

    def hosting(self, model: PreTrainedModel, *, experts: bool) -> AbstractContextManager[None]:
        """Within the block the model computes here; then it is as it was.

        Args:
            model: any.
            experts: whether its own experts come too, or stay in host memory.
        """

    def computing(self) -> AbstractContextManager[None]:
        """Within the block what the calling thread asks of torch is computed here, in order."""

    def now(self) -> float:
        """The time, s on the run's clock, once all is done that compute was asked for."""

    def finish(self) -> None:
        """Wait until all is done that anybody asked the device for."""
