"""What a codec is. A new one is a subclass in a file of its own and a line in the registry."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

Placement = Literal["host", "device"]
Buffer = bytes | memoryview
Float32 = npt.NDArray[np.float32]


class Codec(ABC):
    """Turns a flat tensor into bytes under an absolute error bound, and back.

    A codec may miss the bound by rounding; `offsim.codec.encode` verifies it and tightens.

    Attributes:
        name: how users write it.
        placement: where it decodes. On the host, the link carries the decoded weights; on the
            device, it carries the blob.
        lossless: whether it ignores the bound and gives the same weights back.
    """

    name: ClassVar[str]
    placement: ClassVar[Placement]
    lossless: ClassVar[bool] = False

    def options(self) -> dict[str, str]:
        """What distinguishes this codec from others of its name; stored in every blob."""
        return {}

    @abstractmethod
    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Compress.

        Args:
            weights: [count] bf16, fp16 or float32, finite.
            bound: absolute error wanted, > 0, in the unit of the weights.

        Raises:
            CodecError: this codec cannot represent the weights at this bound.
        """

    @abstractmethod
    def decode(self, payload: Buffer, count: int, dtype: torch.dtype, bound: float) -> torch.Tensor:
        """Decompress what `encode` gave for the same count, dtype and bound.

        Returns:
            [count] of `dtype`.

        Raises:
            CodecError: the payload is not such a stream.
        """


class Float32Codec(Codec):
    """A codec of float32 values: weights are widened before it and rounded back after it."""

    @abstractmethod
    def encode_values(self, values: Float32, bound: float) -> bytes:
        """Compress values [count] float32."""

    @abstractmethod
    def decode_values(self, payload: Buffer, count: int, bound: float) -> Float32:
        """Decompress to [count] float32."""

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Widen and compress."""
        return self.encode_values(weights.float().numpy(), bound)

    def decode(self, payload: Buffer, count: int, dtype: torch.dtype, bound: float) -> torch.Tensor:
        """Decompress and round to the stored dtype."""
        return torch.from_numpy(self.decode_values(payload, count, bound)).to(dtype)
