"""The C core, loaded with ctypes: a plain shared library, so that calls leave the GIL alone."""

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

LEVELS = ("C", "C with AVX2", "C with AVX-512", "C with NEON")
"""What core.c numbers from 0; the highest that a CPU has is the fastest."""
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_ADDRESS, _COUNT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


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
        core = ctypes.CDLL(str(path))
        mask = core.offsim_cuszp_levels()
        self.levels = [number for number in range(len(LEVELS)) if mask >> number & 1]
        self.level = self.levels[-1] if level is None else level
        if self.level not in self.levels:
            raise ValueError(f"this CPU has no {LEVELS[self.level]}")
        self.name = LEVELS[self.level]
        self._bytes, self._encode = core.offsim_cuszp_bytes, core.offsim_cuszp_encode
        self._decode = core.offsim_cuszp_decode
        self._bytes.argtypes, self._bytes.restype = [_ADDRESS, _COUNT, _INT], _COUNT
        self._encode.argtypes = [_ADDRESS, _COUNT, _INT, ctypes.c_float, _INT, _INT]
        self._encode.argtypes += [_ADDRESS, _ADDRESS]
        self._encode.restype = _COUNT
        self._decode.argtypes = [_ADDRESS, _ADDRESS, _COUNT, _COUNT, ctypes.c_float]
        self._decode.argtypes += [_INT, _INT, _INT, _ADDRESS]
        self._decode.restype = None

    def payload_bytes(self, rates: npt.NDArray[np.uint8], mode: int) -> int:
        """Bytes of the payloads by their rates."""
        return int(self._bytes(rates.ctypes.data, len(rates), mode))

    def encode(
        self,
        values: torch.Tensor,
        inverse: float,
        mode: int,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
    ) -> int:
        """Write rates and payloads."""
        dtype, target = DTYPES[values.dtype], payload.ctypes.data
        count, source = values.numel(), values.data_ptr()
        place = rates.ctypes.data
        return int(self._encode(source, count, dtype, inverse, mode, self.level, place, target))

    def decode(
        self,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
        bound: float,
        mode: int,
        out: torch.Tensor,
    ) -> None:
        """Read the values."""
        dtype, count, target = DTYPES[out.dtype], out.numel(), out.data_ptr()
        source, place, size = payload.ctypes.data, rates.ctypes.data, len(payload)
        self._decode(place, source, size, count, bound, mode, dtype, self.level, target)
