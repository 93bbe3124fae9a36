"""The C core, loaded with ctypes: a plain shared library, so that calls release the GIL."""

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

LEVELS = ("C", "C with AVX2", "C with AVX-512", "C with NEON")
"""What core.c numbers from 0; the highest that a CPU has is the fastest."""
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def library() -> Path | None:
    """The compiled core beside this file, if a compiler was there at installation."""
    files = (Path(__file__).with_name(f"_core{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


class Native:
    """The kernels in C; see `offsim.codec.cuszp_kernels.Kernels`.

    Args:
        path: of the compiled core.
        level: an index of LEVELS; by default the highest of this CPU.

    Raises:
        OSError: the file is not a library of this machine.
        ValueError: this CPU does not have the level.
    """

    def __init__(self, path: Path, level: int | None = None) -> None:
        library = ctypes.CDLL(str(path))
        mask = library.offsim_cuszp_levels()
        self.levels = [number for number in range(len(LEVELS)) if mask >> number & 1]
        self.level = self.levels[-1] if level is None else level
        if self.level not in self.levels:
            raise ValueError(f"this CPU has no {LEVELS[self.level]}")
        self.name = LEVELS[self.level]
        self._core = _Core(library)

    def payload_bytes(self, rates: npt.NDArray[np.uint8], mode: int) -> int:
        """Bytes of the payloads by their rates."""
        return int(self._core.payload_bytes(_address(rates), len(rates), mode))

    def encode(
        self,
        values: torch.Tensor,
        inverse: float,
        mode: int,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
    ) -> int:
        """Write rates and payloads."""
        count, source = values.numel(), values.data_ptr()
        how = (DTYPES[values.dtype], inverse, mode, self.level)
        places = (_address(rates), _address(payload))
        return int(self._core.encode(source, count, *how, *places))

    def decode(
        self,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
        bound: float,
        mode: int,
        out: torch.Tensor,
    ) -> None:
        """Read the values."""
        count, target = out.numel(), out.data_ptr()
        how = (count, bound, mode, DTYPES[out.dtype], self.level)
        source = (_address(rates), _address(payload), len(payload))
        self._core.decode(*source, *how, target)


class _Core:
    """The functions of core.c, with their types declared."""

    def __init__(self, library: ctypes.CDLL) -> None:
        whole, real = ctypes.c_int, ctypes.c_float
        address, count = ctypes.c_void_p, ctypes.c_int64
        self.payload_bytes = library.offsim_cuszp_bytes
        self.payload_bytes.argtypes, self.payload_bytes.restype = [address, count, whole], count
        self.encode, self.decode = library.offsim_cuszp_encode, library.offsim_cuszp_decode
        self.encode.argtypes = [address, count, whole, real, whole, whole, address, address]
        self.encode.restype = count
        self.decode.argtypes = [address, address, count, count, real, whole, whole, whole, address]
        self.decode.restype = None


def _address(array: npt.NDArray[np.uint8]) -> int:
    """Where an array lies; quicker than `array.ctypes.data`."""
    address: int = array.__array_interface__["data"][0]
    return address
