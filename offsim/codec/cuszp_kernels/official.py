"""The official cuSZp library of a user, `libcuSZp.so` of release V3, called through ctypes.

For comparison and for calibration: offsim's own kernels make the same bytes. What the library
does wrong is mended here: the size that it reports is counted anew from the rates, the output is
zeroed before a decode, buffers have room and alignment, and as it works on the default stream in
part, the device is quiet before and after every call.
"""

import contextlib
import ctypes
import ctypes.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.cuszp_kernels.layout import (
    blocks_of,
    capacity_of,
    inverse_of,
    number_of,
    rate_area_of,
)
from offsim.errors import CodecError, InputError

VARIABLE = "OFFSIM_CUSZP_LIBRARY"
OF_V3 = "_Z27cuSZp_compress_1D_plain_f32PfPhmPmfP11CUstream_st"
"""A function that V3 has. V2 shares the names below, but not their arguments."""
LARGEST_COUNT = 2**31 - 1
LARGEST_STREAM = 2**32 - 1
VALUE_ALIGNMENT = 16
STREAM_ALIGNMENT = 4
ONE_DIMENSION = 1
FLOAT32 = 0


class Dims(ctypes.Structure):
    """uint3 of CUDA, passed by value."""

    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class Memory(Protocol):
    """The memory that the library reads and writes, and the device that it keeps busy."""

    def zeros(self, size: int) -> torch.Tensor:
        """[size] uint8 of zeros, at an address that is a multiple of 16."""

    def quiet(self) -> contextlib.AbstractContextManager[None]:
        """Waits for all work before what is inside and after it."""


class DeviceMemory:
    """Of a CUDA device.

    Raises:
        InputError: torch finds no CUDA device; the library would return garbage without one.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda" or not torch.cuda.is_available():
            raise InputError(f"the official cuSZp needs a CUDA device, not {device}")
        self.device = device

    def zeros(self, size: int) -> torch.Tensor:
        """From torch's allocator, which aligns to 512 bytes."""
        return torch.zeros(size, dtype=torch.uint8, device=self.device)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """The device is also the current one inside."""
        with torch.cuda.device(self.device):
            torch.cuda.synchronize()
            yield
            torch.cuda.synchronize()


class OfficialCuszp:
    """A loaded library.

    Args:
        memory: of the device that the tensors are on.
        path: of the library; else that in OFFSIM_CUSZP_LIBRARY, else what the system finds.

    Attributes:
        version: what a calibration calls this backend.

    Raises:
        InputError: there is no library, it cannot be loaded, or it is not of release V3.
    """

    version = "official cuSZp V3"

    def __init__(self, memory: Memory, path: str | Path | None = None) -> None:
        self.memory = memory
        self.path = find(path)
        self._library = load(self.path)

    def compress(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        """Encode, and wait for it.

        Args:
            values: float32 of any shape, contiguous, on the device.
            bound: absolute error, > 0, in the unit of the values.
            mode: `fixed`, `plain` or `outlier`.

        Returns:
            The stream, [size] uint8 on the device.

        Raises:
            InputError: an argument is not as said, or too many values.
            CodecError: what the library wrote has a rate that no encoder writes.
        """
        number, count = number_of(mode), _count_of(values)
        inverse_of(bound)
        if not count:
            return self.memory.zeros(0)
        stream = self.memory.zeros(capacity_of(count))
        reported = ctypes.c_size_t(0)
        source = self._aligned(values, VALUE_ALIGNMENT)
        with self.memory.quiet():
            self._library.cuSZp_compress(
                source.data_ptr(),
                stream.data_ptr(),
                count,
                ctypes.byref(reported),
                bound,
                ONE_DIMENSION,
                Dims(count, 1, 1),
                FLOAT32,
                number,
                None,
            )
        # What it reports for a single superblock is only the rate area.
        size = stream_size(stream[: rate_area_of(count)].cpu().numpy(), count, mode)
        return stream[:size].clone()

    def decompress(
        self,
        payload: torch.Tensor,
        out: torch.Tensor,
        bound: float,
        mode: str,
        verify: bool = True,
    ) -> None:
        """Decode into `out`, and wait for it.

        Args:
            payload: [bytes] uint8, contiguous, on the device: a stream and no more.
            out: float32 of any shape, contiguous, on the device; overwritten.
            bound: the bound that the stream was encoded with.
            mode: `fixed`, `plain` or `outlier`.
            verify: whether to read the rates back and check them first. The library does not:
                it reads past the end of a damaged stream. False is for streams verified before.

        Raises:
            InputError: an argument is not as said, or too many values.
            CodecError: the stream is cut, too long, or has a rate that no encoder writes.
        """
        number, count = number_of(mode), _count_of(out)
        if payload.dtype != torch.uint8 or not payload.is_contiguous():
            raise InputError(f"cuszp: the payload is {payload.dtype}; give contiguous uint8")
        size = payload.numel()
        if verify:
            _verify(payload, count, mode)
        if not count:
            return
        aligned = out.data_ptr() % VALUE_ALIGNMENT == 0
        target = out if aligned else self.memory.zeros(4 * count)
        target.zero_()  # blocks of zeros are left as they are
        source = self._aligned(payload, STREAM_ALIGNMENT)
        with self.memory.quiet():
            self._library.cuSZp_decompress(
                target.data_ptr(),
                source.data_ptr(),
                count,
                size,
                bound,
                ONE_DIMENSION,
                Dims(count, 1, 1),
                FLOAT32,
                number,
                None,
            )
        if not aligned:
            out.copy_(target.view(torch.float32).view(out.shape))

    def _aligned(self, tensor: torch.Tensor, alignment: int) -> torch.Tensor:
        """The tensor, or a copy at an aligned address."""
        if tensor.data_ptr() % alignment == 0:
            return tensor
        size = tensor.numel() * tensor.element_size()
        return self.memory.zeros(size).copy_(tensor.view(-1).view(torch.uint8))


def find(path: str | Path | None = None) -> str:
    """The library to load: a path given, else that in OFFSIM_CUSZP_LIBRARY, else the system's.

    Raises:
        InputError: there is none.
    """
    named = path or os.environ.get(VARIABLE) or ctypes.util.find_library("cuSZp")
    if not named:
        raise InputError(
            f"no official cuSZp library was found; set {VARIABLE} to the path of a libcuSZp.so of "
            "release V3, or use offsim's own kernels, which need none"
        )
    return str(named)


def load(path: str) -> ctypes.CDLL:
    """Load a library and declare its two functions.

    Raises:
        InputError: it cannot be loaded or is not of release V3.
    """
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise InputError(
            f"the cuSZp library {path} cannot be loaded ({error}); give a libcuSZp.so of release V3"
        ) from error
    if not hasattr(library, OF_V3):
        what = (
            "is older than release V3, whose arguments and mode numbers differ"
            if hasattr(library, "cuSZp_compress")
            else "is no cuSZp library of release V3"
        )
        raise InputError(f"{path} {what}; build libcuSZp.so from release V3")
    size, how = ctypes.c_size_t, [ctypes.c_float, ctypes.c_int, Dims, ctypes.c_int, ctypes.c_int]
    pointer = ctypes.c_void_p
    sizes = {"cuSZp_compress": ctypes.POINTER(size), "cuSZp_decompress": size}
    for name, size_type in sizes.items():
        function = getattr(library, name)
        function.restype = None
        function.argtypes = [pointer, pointer, size, size_type, *how, pointer]
    return library


def stream_size(rates: npt.NDArray[np.uint8], count: int, mode: str) -> int:
    """Bytes of a stream by its rates.

    Args:
        rates: [rate_area_of(count)] uint8.
        count: values in the stream.
        mode: `fixed`, `plain` or `outlier`.

    Raises:
        CodecError: one of the rates is none that an encoder writes.
    """
    apart = (rates >= 128) & (mode == "outlier")  # the first value is stored apart
    planes = (rates & 31).astype(np.int64)
    lengths = np.where(planes > 0, 4 + 4 * planes, 0)
    lengths[apart] = 5 + 4 * planes[apart] + (rates[apart] >> 5 & 3)
    if (rates[~apart] > 31).any() or rates[blocks_of(count) :].any():
        raise CodecError("cuszp: the stream has a rate that no encoder writes")
    return len(rates) + int(lengths.sum())


def _verify(payload: torch.Tensor, count: int, mode: str) -> None:
    area, size = rate_area_of(count), payload.numel()
    if size < area:
        raise CodecError(f"cuszp: {size} bytes are too few for {count} values")
    needed = stream_size(payload[:area].cpu().numpy(), count, mode)
    if needed != size:
        raise CodecError(f"cuszp: {size} bytes where the rates call for {needed}")


def _count_of(tensor: torch.Tensor) -> int:
    if tensor.dtype != torch.float32 or not tensor.is_contiguous():
        raise InputError(
            f"the official cuSZp cannot use {tensor.dtype} {tuple(tensor.shape)}; "
            "give a contiguous float32 tensor"
        )
    count = tensor.numel()
    if count > LARGEST_COUNT or capacity_of(count) > LARGEST_STREAM:
        raise InputError(
            f"the official cuSZp counts in 32 bits; {count} values are too many, give fewer at once"
        )
    return count
