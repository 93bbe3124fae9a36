"""Round-to-nearest group quantisation, as it is deployed: no bound is asked for or kept.

    scales [groups] float16 | integers [values] of 8 bits, or of 4, two a byte, low half first

A group is a run of consecutive values in row-major order; the last may be shorter. Its scale is
its largest magnitude over the largest integer, and each value becomes the nearest multiple of it.
A 4-bit integer is stored with 8 added. All numbers are little-endian.
"""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.base import Buffer, Codec, Shape, check_size
from offsim.errors import CodecError, InputError

GROUPS = ("32", "64", "128")
SCALE_BYTES = 2
NIBBLE_ZERO = 8


class _Rtn(Codec):
    """What both widths share.

    Args:
        group: values that share a scale, one of GROUPS.

    Raises:
        InputError: another group.
    """

    placement = "device"
    promise = "none"
    bits: ClassVar[int]

    def __init__(self, group: str = "128") -> None:
        if group not in GROUPS:
            raise InputError(f"{self.name} has no group {group!r}; it has {', '.join(GROUPS)}")
        self.group = int(group)

    def options(self) -> dict[str, str]:
        """The values in a group."""
        return {"group": str(self.group)}

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Quantise to a symmetric range of integers.

        Raises:
            CodecError: float16 cannot hold the scale of a group.
        """
        top = (1 << (self.bits - 1)) - 1
        values = weights.reshape(-1).float()
        count = len(values)
        groups = torch.nn.functional.pad(values, (0, -count % self.group)).view(-1, self.group)
        largest = groups.abs().amax(1, keepdim=True)
        scales = (largest / top).half()
        if not bool(torch.isfinite(scales).all()):
            raise CodecError(
                f"{self.name}: the scale of a group that reaches {float(largest.max()):g} is more "
                "than float16 holds; store it raw"
            )
        steps = scales.float()
        steps[steps == 0] = math.inf  # a group too small for a scale: x / inf is 0
        # A denormal scale may be rounded so far down that the integers leave the range.
        whole = (groups / steps).round_().clamp_(-top, top).to(torch.int8).view(-1)[:count]
        return scales.numpy().tobytes() + _packed(whole.numpy(), self.bits).tobytes()

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """Multiply each integer by the scale of its group."""
        count = math.prod(shape)
        groups = -(-count // self.group)
        cut = SCALE_BYTES * groups
        check_size(self.name, payload, cut + -(-count * self.bits // 8), shape)
        data = np.frombuffer(payload, np.uint8)
        scales = data[:cut].view("<f2").astype(np.float32)
        if not (np.isfinite(scales) & ~np.signbit(scales)).all():
            raise CodecError(f"{self.name}: a scale is not a positive number; the blob is damaged")
        values = np.zeros((groups, self.group), np.float32)
        values.reshape(-1)[:count] = _unpacked(data[cut:], self.bits)[:count]
        values *= scales[:, None]
        # A scale that was rounded up may carry the largest weight past the end of float16.
        limit = torch.finfo(dtype).max
        weights = torch.from_numpy(values).view(-1)[:count].clamp_(-limit, limit)
        return weights.to(dtype).view(shape)


class RtnInt8(_Rtn):
    """8-bit integers: 8 + 16 / group bits a weight."""

    name = "rtn-int8"
    bits = 8


class RtnInt4(_Rtn):
    """4-bit integers: 4 + 16 / group bits a weight."""

    name = "rtn-int4"
    bits = 4


def _packed(whole: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.uint8]:
    """Bytes of integers; half a byte stays 0 at the end of an odd count of 4-bit ones."""
    if bits == 8:
        return whole.view(np.uint8)
    halves = np.zeros(len(whole) + len(whole) % 2, np.uint8)
    halves[: len(whole)] = whole + NIBBLE_ZERO
    return halves[::2] | halves[1::2] << np.uint8(4)


def _unpacked(data: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int8]:
    """Integers of bytes; one too many at the end of an odd count of 4-bit ones."""
    if bits == 8:
        return data.view(np.int8)
    halves = np.empty((len(data), 2), np.int8)
    halves[:, 0] = data & 15
    halves[:, 1] = data >> 4
    return halves.reshape(-1) - np.int8(NIBBLE_ZERO)
