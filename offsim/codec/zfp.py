"""zfp through zfpy, at a tolerance. It decodes on the host; zfpy is the optional extra `zfp`.

zfp is made for smooth fields. On weights its errors are 1.7 to 3 times below the tolerance, and it
pays for that in size. It releases the GIL during both calls.
"""

import importlib
import math
from typing import Any

import numpy as np

from offsim.codec.base import Buffer, Float32, Float32Codec, Shape
from offsim.errors import CodecError, InputError

HEADER_BYTES = 12
META_BITS = 52
"""The type, the number of axes and their lengths; 12 bits after them are the mode."""
LENGTH_BITS = 48
LONG_MODE = 4095
"""Stands where the mode takes more than 12 bits, at bounds that float32 weights have no use for."""
MOST_AXES = 4
FLOAT32 = 3
BLOCK_EDGE = 4
PLANES = 32
BLOCK_START_BITS = 9
"""Of a block before its bit planes: whether there is any, and the exponent."""


class Zfp(Float32Codec):
    """zfp in its fixed-accuracy mode.

    Raises:
        InputError: zfpy is not installed.
    """

    name = "zfp"
    placement = "host"

    def __init__(self) -> None:
        try:
            self._zfpy: Any = importlib.import_module("zfpy")
        except ImportError as error:
            raise InputError(
                f"the codec zfp needs zfpy ({error}); run: pip install 'offsim[zfp]'"
            ) from error

    def encode_values(self, values: Float32, bound: float) -> bytes:
        """Compress, with a header of 12 bytes that holds the shape and the tolerance.

        Raises:
            CodecError: zfp refuses the values.
        """
        folded = np.ascontiguousarray(values).reshape(_axes(values.shape))
        self._mode(bound)
        try:
            return bytes(self._zfpy.compress_numpy(folded, tolerance=bound))
        except (RuntimeError, MemoryError) as error:
            raise CodecError(f"zfp: {list(values.shape)} values: {error}") from error

    def decode_values(self, payload: Buffer, shape: Shape, bound: float) -> Float32:
        """Decompress, after a check that the header is the one of this shape and bound.

        zfp reads on past the end of a stream that was cut; zeros stand there, as many as a stream
        of this shape can be long. It does not notice damage: a blob's checksum does.

        Raises:
            CodecError: another header.
        """
        axes = _axes(shape)
        if bytes(payload[:HEADER_BYTES]) != self._header(axes, bound):
            raise CodecError(f"zfp: not a stream of {list(shape)} values at bound {bound:g}")
        padded = np.zeros(max(len(payload), _longest(axes)), np.uint8)
        padded[: len(payload)] = np.frombuffer(payload, np.uint8)
        values: Float32 = self._zfpy.decompress_numpy(padded)
        return values.reshape(shape)

    def _header(self, axes: Shape, bound: float) -> bytes:
        """The first bytes of a stream: `zfp` and a version, then the meta data and the mode."""
        version, mode = self._mode(bound)
        meta = (FLOAT32 - 1) | (len(axes) - 1) << 2
        width = LENGTH_BITS // len(axes)
        for place, length in enumerate(reversed(axes)):
            meta |= (length - 1) << (4 + place * width)
        return version + (mode << META_BITS | meta).to_bytes(8, "little")

    def _mode(self, bound: float) -> tuple[bytes, int]:
        """Version and mode that zfp writes for a single value.

        Raises:
            CodecError: the mode is a long one.
        """
        single = self._zfpy.compress_numpy(np.zeros(1, np.float32), tolerance=bound)
        mode = int.from_bytes(single[4:HEADER_BYTES], "little") >> META_BITS
        if mode == LONG_MODE:
            raise CodecError(f"zfp: the bound {bound:g} is out of its range")
        return bytes(single[:4]), mode


def _axes(shape: Shape) -> Shape:
    """The shape that zfp gets: one to four axes whose lengths its header can hold.

    Raises:
        CodecError: there is none.
    """
    flat = math.prod(shape)
    for axes in (shape, (flat // max(shape[-1], 1), shape[-1]) if shape else (1,), (flat,)):
        most = 1 << LENGTH_BITS // max(len(axes), 1)
        if 1 <= len(axes) <= MOST_AXES and all(1 <= length <= most for length in axes):
            return axes
    raise CodecError(f"zfp: no stream holds {list(shape)} values")


def _longest(axes: Shape) -> int:
    """Most bytes that zfp reads for this shape at any content, and a word more."""
    blocks = math.prod(-(-length // BLOCK_EDGE) for length in axes)
    size: int = BLOCK_EDGE ** len(axes)
    # A plane has a bit for each value seen before and one that ends it; each value, once seen, two.
    bits = blocks * (BLOCK_START_BITS + PLANES * (size + 1) + 2 * size)
    return HEADER_BYTES + bits // 8 + 16
