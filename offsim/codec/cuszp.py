"""cuSZp on the CPU: the byte stream of the official library, release V3.0.0, 1-D float32.

The layout is described in docs/formats.md. A device codec: the blob crosses the link and is
decoded beside the compute.
"""

import math
import os
import threading
from collections import deque
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
SHARES_OF_A_THREAD = 4
"""So that a thread that wakes up late does less, and not all others wait for it."""
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

    def encode(self, weights: torch.Tensor, bound: float) -> Buffer:
        """Compress to an official stream."""
        flat = weights.view(-1)
        largest = float(flat.abs().max())
        if largest / (2 * bound) >= LARGEST_QUOTIENT:
            raise CodecError(f"cuszp: bound {bound:g} is too fine for a value of {largest:g}")
        try:
            return _encoded(flat, bound, self.mode).data.toreadonly()
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
    return encode_array(values, bound, mode, threads, with_kernels).tobytes()


def encode_array(
    values: Float32,
    bound: float,
    mode: str = "fixed",
    threads: int = 1,
    with_kernels: Kernels | None = None,
) -> Bytes:
    """The same as an array [bytes] uint8, which saves a copy.

    Raises:
        InputError: as for `encode_stream`.
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
) -> Bytes:
    inverse, number = float(inverse_of(bound)), number_of(mode)
    core, count = with_kernels or kernels(), flat.numel()
    rates = np.zeros(rate_area_of(count), np.uint8)

    shares = _shares(count, threads)
    room = _room(blocks_of(count) * MOST_BLOCK_BYTES)

    def write(blocks: slice) -> Bytes:
        own = room[blocks.start * MOST_BLOCK_BYTES : blocks.stop * MOST_BLOCK_BYTES]
        values = flat[blocks.start * BLOCK : blocks.stop * BLOCK]
        return own[: core.encode(values, inverse, number, rates[blocks], own)]

    parts = [rates, *_each(write, shares, threads)]
    ends = list(accumulate(map(len, parts), initial=0))
    stream = np.empty(ends[-1], np.uint8)
    places = [(slice(*pair), part) for pair, part in zip(pairwise(ends), parts, strict=True)]
    _each(lambda place: np.copyto(stream[place[0]], place[1]), places, threads)
    return stream


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream whose rates and size fit each other, cut into shares.

    Attributes:
        core: what decodes it.
        mode: its mode.
        threads: that decode it.
        shares: blocks of each share, their rates [blocks] and payloads [bytes].
    """

    core: Kernels
    mode: int
    threads: int
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
        return cls(core, number, threads, [(b, data[b], data[at:end]) for b, (at, end) in parts])

    def read(self, out: torch.Tensor, bound: float) -> None:
        """Fill [count] bf16, fp16 or float32."""
        step = float(np.float32(bound))

        def one(share: tuple[slice, Bytes, Bytes]) -> None:
            blocks, rates, payload = share
            own = out[blocks.start * BLOCK : blocks.stop * BLOCK]
            self.core.decode(rates, payload, step, self.mode, own)

        _each(one, self.shares, self.threads)


def _room(nbytes: int) -> Bytes:
    """Memory to encode into, kept for this thread because new pages cost as much as encoding."""
    room: Bytes | None = getattr(_OWN, "room", None)
    if room is None or len(room) < nbytes:
        room = np.empty(nbytes, np.uint8)  # for the worst case; pages not touched cost nothing
        if nbytes <= KEPT_BYTES:
            _OWN.room = room
    return room[:nbytes]


def _shares(count: int, threads: int) -> list[slice]:
    """Blocks to work on at a time: whole superblocks, several shares a thread."""
    if threads == 1:
        return [slice(0, blocks_of(count))]
    superblocks = superblocks_of(count)
    shares = max(1, min(threads * SHARES_OF_A_THREAD, superblocks))
    ends = [superblocks * share // shares * SUPERBLOCK_BLOCKS for share in range(shares)]
    return [slice(*pair) for pair in pairwise([*ends, blocks_of(count)])]


def _each(work: Callable[[Share], Result], shares: Sequence[Share], threads: int) -> list[Result]:
    """The work done for every share, by this thread and others; each takes the next share."""
    if threads == 1:
        return [work(share) for share in shares]
    waiting = deque(enumerate(shares))
    results: dict[int, Result] = {}

    def run() -> None:
        while waiting:
            try:
                place, share = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            results[place] = work(share)

    others = [_threads(os.getpid()).submit(run) for _ in range(min(threads, len(shares)) - 1)]
    run()
    for other in others:
        other.result()
    return [results[place] for place in range(len(shares))]


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads of this process: those of a parent do not survive a fork."""
    return ThreadPoolExecutor(thread_name_prefix="cuszp")
