"""SZ3 through pysz. It decodes on the host, so it saves memory and disk but not the link."""

import numpy as np
from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

from offsim.codec.base import Buffer, Float32, Float32Codec
from offsim.errors import CodecError, InputError

ALGORITHMS = ("LORENZO_REG", "INTERP_LORENZO", "INTERP", "NOPRED", "LOSSLESS")


class Sz3(Float32Codec):
    """SZ3 with an absolute bound.

    Weights are not smooth, so the default has no predictor: it is the smallest and the fastest.
    pysz holds the GIL during both calls.

    Args:
        algorithm: one of ALGORITHMS.

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
        """Compress; the result is copied off the worst-case buffer that pysz returns a view on."""
        if not len(values):
            return b""
        config = szConfig((len(values),))
        config.errorBoundMode = szErrorBoundMode.ABS
        config.absErrorBound = bound
        config.cmprAlgo = getattr(szAlgorithm, self.algorithm)
        stream, _ = sz.compress(np.ascontiguousarray(values), config)
        return bytes(stream)

    def decode_values(self, payload: Buffer, count: int, bound: float) -> Float32:
        """Decompress; the stream knows its bound.

        pysz does not notice every damage: a blob's checksum does.
        """
        if not count:
            return np.empty(0, np.float32)
        try:
            values, _ = sz.decompress(np.frombuffer(payload, np.uint8), np.float32, (count,))
        except ValueError as error:
            raise CodecError(f"sz3: not a stream of {count} values ({error})") from error
        result: Float32 = values
        return result
