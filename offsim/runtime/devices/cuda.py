"""A CUDA device: copies, decodes and computes on streams of its own. It has never run on one.

It is thin: threads, queues, caches and decisions are those of every device. A thread that carries
has a stream for its copies, the one that decodes a stream for its kernels, and the one that
computes a stream for what torch does. Each waits for what it has asked for, without the interpreter
lock; so whatever was loaded is there before compute hears of it, and memory is not given to
another stream before it is no longer used.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from offsim.codec import Blob, Codec, codec_named
from offsim.codec.base import check_size
from offsim.codec.cuszp import Cuszp
from offsim.codec.cuszp_kernels import cuda as kernels
from offsim.codec.expert import ExpertBlob
from offsim.codec.raw import Raw
from offsim.errors import InputError
from offsim.model.experts import expert_modules
from offsim.runtime.devices.base import Carrier, CopySource, Stamps
from offsim.runtime.devices.lanes import Lane
from offsim.runtime.link import Bytes, chunk_of
from offsim.runtime.store import ExpertStore
from offsim.units import show_bytes

DECODED_HERE = (Raw.name, Cuszp.name)
"""Device codecs that this device can decode."""


class Cuda:
    """The current CUDA device of torch.

    Args:
        cuda: `torch.cuda`, or what has its streams and events; None for that.
        cupy: the module CuPy, or what launches kernels and pins memory as it does; None for that.
        place: where torch has the device's tensors.

    Raises:
        InputError: torch finds no CUDA device, or CuPy is not installed; what is missing is named.
    """

    name = "cuda"

    def __init__(self, cuda: Any = None, cupy: Any = None, place: str = "cuda") -> None:
        self._cuda = torch.cuda if cuda is None else cuda
        lacking = [*_lacking_device(self._cuda)]
        try:
            self._cupy = kernels.installed_cupy() if cupy is None else cupy
        except InputError:
            lacking.append("CuPy is not installed: pip install 'offsim[gpu]'")
        if lacking:
            raise InputError(f"the device cuda cannot be used here: {' and '.join(lacking)}")
        self.place = torch.device(place)
        self._compute = self._cuda.Stream(self.place)
        self._threads = threading.local()
        self._pinned: set[int] = set()

    def check(self, codec: Codec) -> None:
        """Refuse a device codec that has no kernels."""
        if codec.placement == "device" and codec.name not in DECODED_HERE:
            raise InputError(
                f"codec {codec} has no kernels for the device cuda; take "
                f"{', '.join(DECODED_HERE)} or a codec that the host decodes"
            )

    def hold(self, store: ExpertStore) -> ExpertStore:
        """A copy in pinned memory, which copies cross the link from without the CPU."""
        held: dict[int, ExpertBlob] = {}
        for blob in (blob for row in store.blobs for blob in row):
            if id(blob) not in held:
                held[id(blob)] = ExpertBlob(tuple(map(self._held, blob.blobs)))
        blobs = [[held[id(blob)] for blob in row] for row in store.blobs]
        return replace(store, blobs=blobs, low=None if store.low is None else self.hold(store.low))

    def slots(self, count: int, values: int) -> torch.Tensor:
        """[count, values] float32 on the device."""
        try:
            memory = torch.empty(count, values, device=self.place)
        except torch.OutOfMemoryError as error:
            nbytes = show_bytes(count * values * torch.float32.itemsize)
            raise InputError(
                f"the device cuda has no {nbytes} for {count} experts; ask for fewer slots"
            ) from error
        self._cuda.synchronize()  # who had it before may have been asked to use it still
        return memory

    def link(self, bytes_per_s: float | None) -> Carrier:
        """Copies on the stream of the thread that carries."""
        return _Copies(self, bytes_per_s)

    def memories(self, nbytes: int) -> Mapping[str, CopySource]:
        """Pinned memory, and any other, from which CUDA copies by way of pinned memory of its own.

        Copies are those of runs, on the stream of the thread that asks.
        """

        def copy(parts: Sequence[Bytes]) -> Stamps:
            return self.lane().run(partial(self.copied, list(map(torch.from_numpy, parts))))[1]

        pageable = np.ones(nbytes, np.uint8)
        kinds = {"pinned": self._pin(pageable), "pageable": pageable}
        return {name: CopySource(memory, copy) for name, memory in kinds.items()}

    def unpack(
        self, blob: ExpertBlob, parts: Sequence[torch.Tensor], slot: torch.Tensor, *, decoded: bool
    ) -> Stamps:
        """Decode on the stream of the calling thread."""
        lane = self.lane()

        def work() -> list[kernels.Decoding]:
            found, at = [], 0
            for matrix, part in zip(blob.blobs, parts, strict=True):
                room = slot[at : at + matrix.count]
                if decoded or matrix.header.codec == Raw.name:
                    nbytes = matrix.count * matrix.torch_dtype.itemsize
                    check_size(matrix.header.codec, part, nbytes, matrix.header.shape)
                    room.copy_(part.view(matrix.torch_dtype), non_blocking=True)
                else:
                    found.append(self._decode(matrix, part, room, lane))
                at += matrix.count
            return found

        decodings, stamps = lane.run(work)
        if decodings:
            with self._cuda.stream(lane.stream):
                needed = torch.stack([one.needed for one in decodings]).cpu()
            for one, answer in zip(decodings, needed, strict=True):
                replace(one, needed=answer).check()
        return stamps

    @contextmanager
    def hosting(self, model: PreTrainedModel, *, experts: bool) -> Iterator[None]:
        """Parameters and buffers are copied to the device, and those of before put back."""
        before = [(tensor, tensor.data) for tensor in coming(model, experts=experts)]
        try:
            for tensor, data in before:
                tensor.data = data.to(self.place)
            yield
        finally:
            for tensor, data in before:
                tensor.data = data

    @contextmanager
    def computing(self) -> Iterator[None]:
        """On the stream for compute, after all that was asked for before."""
        self._cuda.synchronize()
        try:
            with self._cuda.stream(self._compute):
                yield
        finally:
            self._cuda.synchronize()
            self._pinned.clear()

    def now(self) -> float:
        """The time once the stream for compute has come to its end."""
        self._compute.synchronize()
        return time.perf_counter()

    def finish(self) -> None:
        """All streams come to their ends."""
        self._cuda.synchronize()

    def __str__(self) -> str:
        return f"{self._cuda.get_device_name()}, CuPy {self._cupy.__version__}"

    def lane(self) -> Lane:
        """The stream of the calling thread."""
        lane: Lane | None = getattr(self._threads, "lane", None)
        if lane is None:
            lane = self._threads.lane = Lane(self._cuda, self.place)
        return lane

    def source(self, part: Bytes, here: slice = slice(None)) -> torch.Tensor:
        """Some of an array [bytes] uint8 in pinned memory: where it is, or copied there."""
        held = part.ctypes.data in self._pinned
        return torch.from_numpy(part[here] if held else self._pin(part[here]))

    def room(self, nbytes: int) -> torch.Tensor:
        """[nbytes] uint8 on the device, given out on the current stream."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self.place)

    def copied(self, sources: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Queue copies of host tensors [bytes] uint8 on the current stream, into new memory."""
        into = [self.room(source.numel()) for source in sources]
        for room, source in zip(into, sources, strict=True):
            room.copy_(source, non_blocking=True)
        return into

    def _decode(
        self, matrix: Blob, part: torch.Tensor, room: torch.Tensor, lane: Lane
    ) -> kernels.Decoding:
        """Queue the kernels that decode one matrix, and its widening."""
        header = matrix.header
        codec = codec_named(header.codec, header.options)
        assert isinstance(codec, Cuszp)  # all others were refused
        # In the stored dtype first, so that weights are rounded as on every device.
        weights = torch.empty(matrix.count, dtype=matrix.torch_dtype, device=self.place)
        decoding, plan = kernels.plan_decode(part, weights, header.codec_bound, codec.mode)
        kernels.launch(plan, lane.stream, cupy=self._cupy)
        room.copy_(weights, non_blocking=True)
        return decoding

    def _held(self, blob: Blob) -> Blob:
        pinned = self._pin(np.frombuffer(blob.payload, np.uint8))
        self._pinned.add(pinned.ctypes.data)
        return Blob(blob.header, pinned.data)

    def _pin(self, part: Bytes) -> Bytes:
        """A copy of an array [bytes] uint8 in pinned memory."""
        if not part.nbytes:
            return np.empty(0, np.uint8)
        try:
            memory = self._cupy.cuda.alloc_pinned_memory(part.nbytes)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise InputError(
                f"host memory of {show_bytes(part.nbytes)} cannot be pinned ({error}); store fewer "
                "experts or under a coarser bound"
            ) from error
        pinned = np.frombuffer(memory, np.uint8, part.nbytes)
        np.copyto(pinned, part)
        return pinned


class _Copies:
    """The link to a CUDA device.

    Where it is faster than its pace, the thread that carries sleeps for the time that is left.

    Args:
        device: to which it goes.
        bytes_per_s: pace; None for as fast as it is.
    """

    def __init__(self, device: Cuda, bytes_per_s: float | None) -> None:
        self._device, self.bytes_per_s = device, bytes_per_s

    def carry(
        self, parts: Sequence[Bytes], since: float = math.inf
    ) -> tuple[Sequence[torch.Tensor], Stamps]:
        """Copy arrays [bytes] uint8 into new memory of the device; it begins when it is asked."""
        sources = [self._device.source(part) for part in parts]
        return self._paced(partial(self._device.copied, sources), sum(p.nbytes for p in parts))

    def room(self, parts: Sequence[Bytes]) -> Sequence[torch.Tensor]:
        """New memory of the device, given out on the stream of the calling thread."""
        device = self._device
        room, _ = device.lane().run(lambda: [device.room(part.nbytes) for part in parts])
        return room

    def carry_chunk(
        self,
        parts: Sequence[Bytes],
        into: Sequence[torch.Tensor],
        begin: int,
        end: int,
        since: float = math.inf,
    ) -> Stamps:
        """Copy what belongs to a chunk."""

        def work() -> None:
            for source, room in pieces:
                room.copy_(source, non_blocking=True)

        found = chunk_of(parts, into, begin, end)
        pieces = [(self._device.source(part, here), to[here]) for part, to, here in found]
        return self._paced(work, end - begin)[1]

    def _paced(self, work: Callable[[], Any], nbytes: int) -> tuple[Any, Stamps]:
        result, (begin, end) = self._device.lane().run(work)
        if self.bytes_per_s is not None:
            left = begin + nbytes / self.bytes_per_s - time.perf_counter()
            if left > 0:
                time.sleep(left)
                end = time.perf_counter()
        return result, (begin, end)


def coming(model: PreTrainedModel, *, experts: bool) -> list[torch.Tensor]:
    """The parameters and buffers of a model that it computes with on a device.

    Args:
        model: any.
        experts: whether those of its experts are among them.
    """
    modules = [] if experts else expert_modules(model)
    stay = {id(tensor) for one in modules for tensor in (one.gate_up_proj, one.down_proj)}
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor for tensor in tensors if id(tensor) not in stay]


def _lacking_device(cuda: Any) -> Iterator[str]:
    """What has to be there before torch can use a CUDA device."""
    if cuda is torch.cuda and torch.version.cuda is None:
        yield f"torch {torch.__version__} is built for the CPU alone: install a build for CUDA"
    elif not cuda.is_available():
        yield "torch finds no CUDA device"
