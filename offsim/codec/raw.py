"""No compression: the bytes of the stored dtype."""

import math

import numpy as np
import torch

from offsim.codec.base import Buffer, Codec, Shape, check_size


class Raw(Codec):
    """The stored bytes as they are; the baseline of every comparison."""

    name = "raw"
    placement = "device"
    promise = "exact"

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """The bytes of the tensor."""
        return weights.contiguous().view(-1).view(torch.uint8).numpy().tobytes()

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """A copy of the bytes as a tensor."""
        check_size(self.name, payload, math.prod(shape) * dtype.itemsize, shape)
        return torch.from_numpy(np.frombuffer(payload, np.uint8).copy()).view(dtype).view(shape)
