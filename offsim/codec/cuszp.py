"""cuSZp on the CPU: the byte stream of the official library, release V3.0.0, 1-D float32.

The layout is described in docs/formats.md. A device codec: the blob crosses the link and is
decoded beside the compute.
"""

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.base import Buffer, Codec, Float32, Shape
from offsim.codec.cuszp_kernels import Kernels, kernels
from offsim.codec.cuszp_kernels.layout import (
    BLOCK,
    MOST_BLOCK_BYTES,
    SUPERBLOCK_BLOCKS,
    blocks_of,
    inverse_of,
    number_of,
    rate_area_of,
    superblocks_of,
)
from offsim.errors import CodecError, InputError

Bytes = npt.NDArray[np.uint8]
Share = TypeVar("Share")
Result = TypeVar("Result")
KEPT_BYTES = 1 << 26
"""Most that a thread keeps of the memory that it encoded into."""
_OWN = threading.local()
LARGEST_QUOTIENT = float(1 << 22)
"""|x| / (2 bound) at which the float32 quantiser stops rounding to nearest."""


class Cuszp(Codec):
    """cuSZp with an absolute bound.

    Args:
        mode: `fixed` codes every value by itself; `plain` codes differences of neighbours, which
            weights make no smaller; `outlier` is `plain` with the first of each 32 apart.

    Raises:
        InputError: no such mode.
    """

    name = "cuszp"
    placement = "device"

    def __init__(self, mode: str = "fixed") -> None:
        number_of(mode)
        self.mode = mode

    def options(self) -> dict[str, str]:
        """The mode."""
        return {"mode": self.mode}

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Compress to an official stream."""
        flat = weights.view(-1)
        largest = float(flat.abs().max())
        if largest / (2 * bound) >= LARGEST_QUOTIENT:
            raise CodecError(f"cuszp: bound {bound:g} is too fine for a value of {largest:g}")
        try:
            return _encoded(flat, bound, self.mode)
        except InputError as error:
            raise CodecError(str(error)) from error

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """Decompress an official stream, straight to the stored dtype."""
        stream = _Stream.checked(payload, math.prod(shape), self.mode)
        out = torch.empty(shape, dtype=dtype)
        stream.read(out.view(-1), bound)
        return out


def encode_stream(
    values: Float32,
    bound: float,
    mode: str = "fixed",
    threads: int = 1,
    with_kernels: Kernels | None = None,
) -> bytes:
    """The official stream of values under an absolute bound.

    Args:
        values: [count] float32.
        bound: absolute, rounded to float32; unit of the values.
        mode: `fixed`, `plain` or `outlier`.
        threads: that share the superblocks.
        with_kernels: by default the fastest of this installation.

    Raises:
        InputError: the bound is not a positive float32 whose half inverse is finite.
    """
    flat = torch.from_numpy(np.require(values, np.float32, ["C", "W"]).reshape(-1))
    return _encoded(flat, bound, mode, threads, with_kernels)


def decode_stream(
    stream: Buffer,
    count: int,
    bound: float,
    mode: str = "fixed",
    threads: int = 1,
    with_kernels: Kernels | None = None,
) -> Float32:
    """Values [count] float32 of an official stream.

    Raises:
        CodecError: the stream is cut, too long, or has a rate that no encoder writes.
    """
    checked = _Stream.checked(stream, count, mode, threads, with_kernels)
    values = np.empty(count, np.float32)
    checked.read(torch.from_numpy(values), bound)
    return values


def decode_into(
    stream: Buffer,
    out: torch.Tensor,
    bound: float,
    mode: str = "fixed",
    threads: int = 1,
    with_kernels: Kernels | None = None,
) -> None:
    """Fill a contiguous tensor of bf16, fp16 or float32 with the values of an official stream.

    Raises:
        CodecError: as for `decode_stream`; nothing was written then.
    """
    checked = _Stream.checked(stream, out.numel(), mode, threads, with_kernels)
    checked.read(out.view(-1), bound)


def _encoded(
    flat: torch.Tensor,
    bound: float,
    mode: str,
    threads: int = 1,
    with_kernels: Kernels | None = None,
) -> bytes:
    inverse, number = float(inverse_of(bound)), number_of(mode)
    core, count = with_kernels or kernels(), flat.numel()
    rates = np.zeros(rate_area_of(count), np.uint8)

    shares = _shares(count, threads)
    room = _room(blocks_of(count) * MOST_BLOCK_BYTES)

    def write(blocks: slice) -> Bytes:
        own = room[blocks.start * MOST_BLOCK_BYTES : blocks.stop * MOST_BLOCK_BYTES]
        values = flat[blocks.start * BLOCK : blocks.stop * BLOCK]
        return own[: core.encode(values, inverse, number, rates[blocks], own)]

    parts = _each(write, shares)
    return b"".join([rates.data, *(part.data for part in parts)])


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream whose rates and size fit each other, cut into shares.

    Attributes:
        core: what decodes it.
        mode: its mode.
        shares: blocks of each share, their rates [blocks] and payloads [bytes].
    """

    core: Kernels
    mode: int
    shares: list[tuple[slice, Bytes, Bytes]]

    @classmethod
    def checked(
        cls,
        stream: Buffer,
        count: int,
        mode: str,
        threads: int = 1,
        with_kernels: Kernels | None = None,
    ) -> "_Stream":
        """Look at every rate before memory is taken for the values."""
        core, number = with_kernels or kernels(), number_of(mode)
        data, start = np.frombuffer(stream, np.uint8), rate_area_of(count)
        if len(data) < start:
            raise CodecError(f"cuszp: {len(data)} bytes are too few for {count} values")
        shares = _shares(count, threads)
        sizes = [core.payload_bytes(data[blocks], number) for blocks in shares]
        padding = data[blocks_of(count) : start]
        if min(sizes, default=0) < 0 or padding.any():
            raise CodecError("cuszp: the stream has a rate that no encoder writes")
        ends = list(accumulate(sizes, initial=start))
        if ends[-1] != len(data):
            raise CodecError(f"cuszp: {len(data)} bytes where the rates call for {ends[-1]}")
        parts = zip(shares, pairwise(ends), strict=True)
        return cls(core, number, [(b, data[b], data[at:end]) for b, (at, end) in parts])

    def read(self, out: torch.Tensor, bound: float) -> None:
        """Fill [count] bf16, fp16 or float32."""
        step = float(np.float32(bound))

        def one(share: tuple[slice, Bytes, Bytes]) -> None:
            blocks, rates, payload = share
            own = out[blocks.start * BLOCK : blocks.stop * BLOCK]
            self.core.decode(rates, payload, step, self.mode, own)

        _each(one, self.shares)


def _room(nbytes: int) -> Bytes:
    """Memory to encode into, kept for this thread because new pages cost as much as encoding."""
    room: Bytes | None = getattr(_OWN, "room", None)
    if room is None or len(room) < nbytes:
        room = np.empty(nbytes, np.uint8)  # for the worst case; pages not touched cost nothing
        if nbytes <= KEPT_BYTES:
            _OWN.room = room
    return room[:nbytes]


def _shares(count: int, threads: int) -> list[slice]:
    """Blocks of each thread: whole superblocks, as even as they can be."""
    superblocks = superblocks_of(count)
    threads = max(1, min(threads, superblocks))
    ends = [superblocks * share // threads * SUPERBLOCK_BLOCKS for share in range(threads)]
    return [slice(*pair) for pair in pairwise([*ends, blocks_of(count)])]


def _each(work: Callable[[Share], Result], shares: Sequence[Share]) -> list[Result]:
    """The work done for every share: the first here, each of the others on another thread."""
    if len(shares) == 1:
        return [work(shares[0])]
    others = [_threads(os.getpid()).submit(work, share) for share in shares[1:]]
    return [work(shares[0]), *(other.result() for other in others)]


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of this process: those of a parent do not survive a fork."""
    return ThreadPoolExecutor(thread_name_prefix="cuszp")
