"""cuSZp on a CUDA device: the kernels of `offsim/codec/cuszp.cu`, launched through CuPy.

Tensors are used where they lie. Nothing waits for the device before `exact` or `check`, nothing
runs on another stream than the one given, and scratch comes from torch's allocator on it.

What is launched is planned by functions that touch no device, `plan_encode` and `plan_decode`.
"""

import contextlib
import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offsim.codec.cuszp_kernels.layout import (
    SUPERBLOCK_BLOCKS,
    blocks_of,
    capacity_of,
    inverse_of,
    number_of,
    superblocks_of,
)
from offsim.errors import CodecError, InputError

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "fp16"}

THREADS = 256
BLOCKS_AT_ONCE = THREADS // 4
"""Blocks of one thread block: a block of values has four threads."""
TILES = 32
"""Groups of 32 blocks in a superblock: a warp finds its payload from where its group starts."""


@dataclass(frozen=True)
class Launch:
    """One kernel to run.

    Attributes:
        kernel: its name in the source.
        grid: thread blocks.
        block: threads of each.
        arguments: numpy scalars of the widths that the kernel takes; addresses are uint64.
    """

    kernel: str
    grid: int
    block: int
    arguments: tuple[np.generic, ...]


@dataclass(frozen=True)
class Encoded:
    """A stream whose size only the device knows as yet.

    Attributes:
        buffer: [worst case] uint8 on the device; the stream is its first `size` bytes.
        size: [] int64 on the device, bytes.
        stream: on which both are made; None on the CPU.
    """

    buffer: torch.Tensor
    size: torch.Tensor
    stream: torch.cuda.Stream | None

    def exact(self) -> torch.Tensor:
        """The stream, [size] uint8 on the device, in memory of its own. Waits for the device."""
        with on(self.stream):
            exact = self.buffer[: int(self.size)].clone()
        if self.stream is not None:
            self.stream.synchronize()
        return exact


@dataclass(frozen=True)
class Decoding:
    """A decode under way.

    Attributes:
        needed: [] int64 on the device: the bytes that the rates call for, -1 where one of them is
            none that an encoder writes. Unless it is `size`, nothing was written.
        size: bytes of the stream given.
        stream: on which it runs; None on the CPU.
    """

    needed: torch.Tensor
    size: int
    stream: torch.cuda.Stream | None

    def check(self) -> None:
        """Wait for the device and see whether it could decode.

        Raises:
            CodecError: the stream is cut, too long, or has a rate that no encoder writes.
        """
        with on(self.stream):
            needed = int(self.needed)
        if needed < 0:
            raise CodecError("cuszp: the stream has a rate that no encoder writes")
        if needed != self.size:
            raise CodecError(f"cuszp: {self.size} bytes where the rates call for {needed}")


def encode(values: torch.Tensor, bound: float, mode: str, stream: torch.cuda.Stream) -> Encoded:
    """Encode on a stream, without waiting.

    Neither whether the values are finite is checked, nor whether the quotients are small enough
    to be rounded to nearest: that needs the host to wait.

    Args:
        values: bf16, fp16 or float32 of any shape, contiguous, on a CUDA device.
        bound: absolute error, > 0, in the unit of the values.
        mode: one of MODES.
        stream: of the same device.

    Raises:
        InputError: an argument is not as said, or CuPy is not installed.
    """
    _check_device(values, "values", stream)
    with on(stream):
        encoded, launches = plan_encode(values, bound, mode, stream)
    launch(launches, stream, values)
    return encoded


def decode(
    payload: torch.Tensor,
    out: torch.Tensor,
    bound: float,
    mode: str,
    stream: torch.cuda.Stream,
) -> Decoding:
    """Decode on a stream into `out`, without waiting.

    Args:
        payload: [bytes] uint8, contiguous, on a CUDA device: a stream and no more.
        out: bf16, fp16 or float32 of any shape, contiguous, on the same device; overwritten,
            rounded to nearest even.
        bound: the bound that the stream was encoded with.
        mode: one of MODES.
        stream: of the same device.

    Raises:
        InputError: an argument is not as said, or CuPy is not installed.
        CodecError: the payload is shorter than the rates of so many values. Other damage only
            `Decoding.check` knows.
    """
    _check_device(payload, "the payload", stream)
    _check_device(out, "the output", stream)
    with on(stream):
        decoding, launches = plan_decode(payload, out, bound, mode, stream)
    launch(launches, stream, payload, out)
    return decoding


def plan_encode(
    values: torch.Tensor, bound: float, mode: str, stream: torch.cuda.Stream | None = None
) -> tuple[Encoded, list[Launch]]:
    """Allocate where the values are, and plan; the arguments are those of `encode`."""
    kind = _kind_of(values, "values")
    number = np.int32(number_of(mode))
    inverse = inverse_of(bound)
    places = _Places(values.numel(), values.device)
    buffer = torch.empty(capacity_of(values.numel()), dtype=torch.uint8, device=values.device)
    into = _address(buffer)
    what = (_address(values), np.int64(values.numel()), inverse, number)
    where = (places.tiles, places.begins, into)
    launches = [
        Launch(f"rates_{kind}", places.rate_area // BLOCKS_AT_ONCE, THREADS, (*what, into)),
        *places.plan(into, number),
        Launch(f"payloads_{kind}", places.grid, THREADS, (*what, *where)),
    ]
    return Encoded(buffer, places.size, stream), [one for one in launches if one.grid]


def plan_decode(
    payload: torch.Tensor,
    out: torch.Tensor,
    bound: float,
    mode: str,
    stream: torch.cuda.Stream | None = None,
) -> tuple[Decoding, list[Launch]]:
    """Allocate where the output is, and plan; the arguments are those of `decode`."""
    kind = _kind_of(out, "the output")
    number = np.int32(number_of(mode))
    if payload.dtype != torch.uint8 or not payload.is_contiguous():
        raise InputError(f"cuszp: the payload is {payload.dtype}; give contiguous uint8")
    count, size = out.numel(), payload.numel()
    places = _Places(count, out.device)
    if size < places.rate_area:
        raise CodecError(f"cuszp: {size} bytes are too few for {count} values")
    source = _address(payload)
    what = (source, np.int64(size), np.int64(count), np.float32(bound), number)
    where = (places.tiles, places.begins, places.needed, _address(out))
    launches = [
        *places.plan(source, number),
        Launch(f"decode_{kind}", places.grid, THREADS, (*what, *where)),
    ]
    decoding = Decoding(places.size, size, stream)
    return decoding, [one for one in launches if one.grid]


def kernel_names() -> tuple[str, ...]:
    """Every kernel that a plan may name."""
    typed = (
        f"{step}_{kind}" for step in ("rates", "payloads", "decode") for kind in DTYPES.values()
    )
    return ("lengths", "starts", *typed)


def source() -> str:
    """The CUDA C++ of the kernels."""
    return Path(__file__).parents[1].joinpath("cuszp.cu").read_text(encoding="utf-8")


def on(stream: torch.cuda.Stream | None) -> contextlib.AbstractContextManager[None]:
    """What torch does inside, it does on this stream; None leaves everything as it is."""
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


class _Places:
    """Where payloads lie in a stream of `count` values, in scratch that kernels fill.

    The scratch is [17 * superblocks + 1] int64: the first byte of every superblock, the size of
    the stream, and, as uint32, the first byte of every tile in its superblock.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.blocks = blocks_of(count)
        self.superblocks = superblocks_of(count)
        self.rate_area = self.superblocks * SUPERBLOCK_BLOCKS
        self.grid = -(-self.blocks // BLOCKS_AT_ONCE)
        words = self.superblocks + 1 + self.superblocks * TILES // 2
        scratch = torch.empty(words, dtype=torch.int64, device=device)
        self.size = scratch[self.superblocks]
        self.begins = _address(scratch)
        self.needed = _address(self.size)
        self.tiles = np.uint64(self.needed + 8)

    def plan(self, stream: np.uint64, number: np.int32) -> list[Launch]:
        """From the rates at the head of a stream to all of this."""
        rates = (stream, np.int64(self.blocks), number, self.tiles, self.begins)
        sums = (self.begins, np.int64(self.superblocks), np.int64(self.rate_area), self.needed)
        return [
            Launch("lengths", self.superblocks, SUPERBLOCK_BLOCKS, rates),
            Launch("starts", 1, 1024, sums),
        ]


def _address(tensor: torch.Tensor) -> np.uint64:
    return np.uint64(tensor.data_ptr())


def _kind_of(tensor: torch.Tensor, what: str) -> str:
    if tensor.dtype not in DTYPES or not tensor.is_contiguous():
        raise InputError(
            f"cuszp: {what} {tuple(tensor.shape)} {tensor.dtype} cannot be used on a device; "
            "give a contiguous bf16, fp16 or float32 tensor"
        )
    return DTYPES[tensor.dtype]


def _check_device(tensor: torch.Tensor, what: str, stream: torch.cuda.Stream) -> None:
    if tensor.device != stream.device:
        raise InputError(
            f"cuszp: {what} is on {tensor.device} and the stream on {stream.device}; "
            "give both of one CUDA device"
        )


def launch(
    launches: Sequence[Launch],
    stream: torch.cuda.Stream,
    *used: torch.Tensor,
    cupy: Any = None,
) -> None:
    """Queue kernels on a stream, and keep torch from reusing what they use before they ran.

    Args:
        launches: of a plan whose memory is on the device of the stream.
        stream: of torch.
        used: tensors that nobody waits for before they are given back.
        cupy: the module that launches; None for the one that is installed.

    Raises:
        InputError: CuPy is not installed.
    """
    cupy = cupy or installed_cupy()
    device = stream.device.index
    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream.cuda_stream, device):
        for one in launches:
            kernel = _kernel(cupy, one.kernel, device)
            kernel((one.grid,), (one.block,), one.arguments)
    for tensor in used:
        tensor.record_stream(stream)


def installed_cupy() -> Any:
    """CuPy.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise InputError(
            f"cuszp on a device needs CuPy ({error}); pip install 'offsim[gpu]'"
        ) from error


@functools.cache
def _module(cupy: Any) -> Any:
    return cupy.RawModule(code=source(), options=("--std=c++17",))


@functools.cache
def _kernel(cupy: Any, name: str, device: int) -> Any:
    """Compiled by NVRTC for the current device, which is `device`; CuPy keeps it on disk."""
    return _module(cupy).get_function(name)
