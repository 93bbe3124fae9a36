"""SZ3 through pysz. It decodes on the host, so it saves memory and disk but not the link."""

import math

import numpy as np
from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

from offsim.codec.base import Buffer, Float32, Float32Codec, Shape
from offsim.errors import CodecError, InputError

ALGORITHMS = ("LORENZO_REG", "INTERP_LORENZO", "INTERP", "NOPRED", "LOSSLESS")
MOST_AXES = 4
REFUSALS = (ValueError, IndexError, ArithmeticError, RuntimeError, MemoryError)
"""What the exceptions of the C++ library become."""


class Sz3(Float32Codec):
    """SZ3 with an absolute bound.

    Weights are not smooth, so the default has no predictor: it is the smallest and the fastest.
    pysz holds the GIL during both calls; `offsim.codec.pool` decodes on several cores.

    Args:
        algorithm: one of ALGORITHMS. LOSSLESS ignores the bound.

    Raises:
        InputError: no such algorithm.
    """

    name = "sz3"
    placement = "host"

    def __init__(self, algorithm: str = "NOPRED") -> None:
        if algorithm not in ALGORITHMS:
            raise InputError(f"sz3 has no algorithm {algorithm!r}; it has {', '.join(ALGORITHMS)}")
        self.algorithm = algorithm

    def options(self) -> dict[str, str]:
        """The algorithm."""
        return {"algorithm": self.algorithm}

    def encode_values(self, values: Float32, bound: float) -> bytes:
        """Compress; the result is copied off the worst-case buffer that pysz returns a view on.

        Raises:
            CodecError: SZ3 refuses the values.
        """
        folded = np.ascontiguousarray(values).reshape(_axes(values.shape))
        try:
            config = szConfig(folded.shape)
            config.errorBoundMode = szErrorBoundMode.ABS
            config.absErrorBound = bound
            config.cmprAlgo = getattr(szAlgorithm, self.algorithm)
            stream, _ = sz.compress(folded, config)
        except REFUSALS as error:
            raise CodecError(f"sz3: {list(values.shape)} values at {bound:g}: {error}") from error
        return bytes(stream)

    def decode_values(self, payload: Buffer, shape: Shape, bound: float) -> Float32:
        """Decompress; the stream knows its bound.

        pysz checks the count of values before it takes memory for them, but does not notice every
        damage: a blob's checksum does.

        Raises:
            CodecError: not a stream of as many values.
        """
        try:
            values, _ = sz.decompress(np.frombuffer(payload, np.uint8), np.float32, _axes(shape))
        except REFUSALS as error:
            raise CodecError(f"sz3: not a stream of {list(shape)} values ({error})") from error
        result: Float32 = values.reshape(shape)
        return result


def _axes(shape: Shape) -> Shape:
    """The shape that SZ3 gets: it has one to four axes."""
    if not shape:
        return (1,)
    return shape if len(shape) <= MOST_AXES else (math.prod(shape[:-1]), shape[-1])
