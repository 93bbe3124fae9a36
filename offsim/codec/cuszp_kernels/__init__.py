"""What encodes and decodes cuSZp streams: C where it was compiled, numba elsewhere, CUDA on GPUs.

All give the same bytes. `kernels()` is what this installation has for the CPU.
"""

from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.cuszp_kernels.layout import MODES
from offsim.codec.cuszp_kernels.native import Native, library

__all__ = ["MODES", "Kernels", "Native", "kernels", "library"]


class Kernels(Protocol):
    """Encoder and decoder of whole blocks of 32; none of them holds the GIL.

    Attributes:
        name: what it is, for people.
    """

    name: str

    def payload_bytes(self, rates: npt.NDArray[np.uint8], mode: int) -> int:
        """Bytes of the payloads of blocks with rates [blocks] uint8; -1 if one is no rate."""

    def encode(
        self,
        values: torch.Tensor,
        inverse: float,
        mode: int,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
    ) -> int:
        """Write rates and payloads.

        Args:
            values: [count] bf16, fp16 or float32, contiguous.
            inverse: float32(0.5 / bound).
            mode: a value of MODES.
            rates: [blocks] uint8, overwritten.
            payload: [at least 128 * blocks] uint8, overwritten.

        Returns:
            Bytes of the payloads.
        """

    def decode(
        self,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
        bound: float,
        mode: int,
        out: torch.Tensor,
    ) -> None:
        """Read the values; the caller has checked rates and sizes.

        Args:
            rates: [blocks] uint8.
            payload: [bytes by the rates] uint8.
            bound: a float32.
            mode: a value of MODES.
            out: [count] bf16, fp16 or float32, contiguous, overwritten.
        """


@cache
def kernels() -> Kernels:
    """The fastest kernels that this installation and this CPU have."""
    path = library()
    if path is not None:
        try:
            return Native(path)
        except OSError:  # compiled for another kind of machine
            pass
    from offsim.codec.cuszp_kernels.loops import Loops

    return Loops()
