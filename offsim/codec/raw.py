"""No compression: the bytes of the stored dtype."""

import numpy as np
import torch

from offsim.codec.base import Buffer, Codec
from offsim.errors import CodecError


class Raw(Codec):
    """The stored bytes as they are; the baseline of every comparison."""

    name = "raw"
    placement = "device"
    lossless = True

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """The bytes of the tensor."""
        return weights.contiguous().view(torch.uint8).numpy().tobytes()

    def decode(self, payload: Buffer, count: int, dtype: torch.dtype, bound: float) -> torch.Tensor:
        """A copy of the bytes as a tensor."""
        if len(payload) != count * dtype.itemsize:
            raise CodecError(f"raw: {len(payload)} bytes cannot be {count} values of {dtype}")
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.from_numpy(np.frombuffer(payload, np.uint8).copy()).view(dtype)
