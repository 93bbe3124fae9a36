"""cuSZp, mode FIXED, on the CPU: the byte stream of the official library, release V3.0.0.

The layout is described in docs/formats.md. A device codec: the blob crosses the link and is
decoded beside the compute.
"""

import numpy as np

from offsim.codec import cuszp_kernels as kernels
from offsim.codec.base import Buffer, Float32, Float32Codec
from offsim.errors import CodecError, InputError

SUPERBLOCK_BLOCKS = 1024
BLOCK = 32
LARGEST_QUOTIENT = float(1 << 22)
"""|x| / (2 bound) at which the float32 quantiser stops rounding to nearest."""
HIGHEST_RATE = 31


class Cuszp(Float32Codec):
    """cuSZp with an absolute bound and no predictor.

    Args:
        mode: only `fixed` so far.

    Raises:
        InputError: no such mode.
    """

    name = "cuszp"
    placement = "device"

    def __init__(self, mode: str = "fixed") -> None:
        if mode != "fixed":
            raise InputError(f"cuszp has no mode {mode!r} here; it has fixed")
        self.mode = mode

    def options(self) -> dict[str, str]:
        """The mode."""
        return {"mode": self.mode}

    def encode_values(self, values: Float32, bound: float) -> bytes:
        """Compress to an official stream."""
        largest = float(np.abs(values).max(initial=0.0))
        if largest / (2 * bound) >= LARGEST_QUOTIENT:
            raise CodecError(f"cuszp: bound {bound:g} is too fine for a value of {largest:g}")
        try:
            return encode_stream(values, bound)
        except InputError as error:
            raise CodecError(str(error)) from error

    def decode_values(self, payload: Buffer, count: int, bound: float) -> Float32:
        """Decompress an official stream."""
        return decode_stream(payload, count, bound)


def encode_stream(values: Float32, bound: float) -> bytes:
    """The official stream of values [count] float32 at an absolute bound, mode FIXED.

    Raises:
        InputError: the bound is not a positive float32 whose half inverse is finite.
    """
    with np.errstate(over="ignore", divide="ignore", under="ignore"):
        step = np.float32(bound)
        inverse = np.float32(0.5) / step
    if not (0 < step < np.inf and np.isfinite(inverse)):
        raise InputError(f"cuszp: the bound {bound:g} is not a usable positive float32")
    blocks = -(-len(values) // BLOCK)
    rate_area = -(-blocks // SUPERBLOCK_BLOCKS) * SUPERBLOCK_BLOCKS
    stream = np.empty(rate_area + blocks * (4 + 4 * HIGHEST_RATE), np.uint8)
    stream[:rate_area] = 0
    size = kernels.encode_fixed(np.ascontiguousarray(values), inverse, rate_area, stream)
    return stream[:size].tobytes()


def decode_stream(stream: Buffer, count: int, bound: float) -> Float32:
    """Values [count] float32 of an official stream, mode FIXED.

    Raises:
        CodecError: the stream is cut, too long, or has a rate that no encoder writes.
    """
    blocks = -(-count // BLOCK)
    rate_area = -(-blocks // SUPERBLOCK_BLOCKS) * SUPERBLOCK_BLOCKS
    data = np.frombuffer(stream, np.uint8)
    if len(data) < rate_area:
        raise CodecError(f"cuszp: {len(data)} bytes are too few for {count} values")
    expected = kernels.size_fixed(data, rate_area, blocks)
    if expected < 0:
        raise CodecError("cuszp: the stream has a rate that no encoder writes")
    if expected != len(data):
        raise CodecError(f"cuszp: {len(data)} bytes where the rates call for {expected}")
    values = np.empty(count, np.float32)
    kernels.decode_fixed(data, rate_area, np.float32(bound), values)
    return values
