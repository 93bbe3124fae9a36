"""What a codec is. A new one is a subclass in a file of its own and a line in the registry."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sized
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch

from offsim.errors import CodecError

Placement = Literal["host", "device"]
Promise = Literal["exact", "bound", "none"]
Buffer = bytes | memoryview
Float32 = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class Codec(ABC):
    """Turns a tensor into bytes, and back.

    A codec may miss its bound by rounding; `offsim.codec.encode` verifies it and tightens. Two
    codecs of one name and the same options are equal.

    Attributes:
        name: how users write it.
        placement: where it decodes. On the host, the link carries the decoded weights; on the
            device, it carries the blob.
        promise: `exact` gives the same weights back and takes no bound; `bound` keeps every error
            below an absolute bound; `none` takes no bound and promises nothing.
    """

    name: ClassVar[str]
    placement: ClassVar[Placement]
    promise: ClassVar[Promise] = "bound"

    def options(self) -> dict[str, str]:
        """What distinguishes this codec from others of its name; stored in every blob."""
        return {}

    @abstractmethod
    def encode(self, weights: torch.Tensor, bound: float) -> Buffer:
        """Compress.

        Args:
            weights: any shape, contiguous, not empty; bf16, fp16 or float32, finite.
            bound: absolute error wanted, > 0, in the unit of the weights; 0 where the promise is
                not a bound.

        Raises:
            CodecError: this codec cannot represent the weights at this bound.
        """

    @abstractmethod
    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """Decompress what `encode` gave for the same shape, dtype and bound.

        Returns:
            [*shape] of `dtype`, in memory of its own.

        Raises:
            CodecError: the payload is not such a stream.
        """

    def __str__(self) -> str:
        """The name and the options that are not the default: `sz3`, `cuszp:mode=plain`."""
        usual = type(self)().options()
        own = [f"{key}={value}" for key, value in self.options().items() if usual[key] != value]
        return ":".join([self.name, ",".join(own)] if own else [self.name])

    def __repr__(self) -> str:
        return f"<codec {self}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codec):
            return NotImplemented
        return (self.name, self.options()) == (other.name, other.options())

    def __hash__(self) -> int:
        return hash(str(self))


class Float32Codec(Codec):
    """A codec of float32 values: weights are widened before it and rounded back after it."""

    @abstractmethod
    def encode_values(self, values: Float32, bound: float) -> bytes:
        """Compress values [*shape] float32."""

    @abstractmethod
    def decode_values(self, payload: Buffer, shape: Shape, bound: float) -> Float32:
        """Decompress to [*shape] float32."""

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Widen and compress."""
        return self.encode_values(weights.float().numpy(), bound)

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """Decompress and round to the stored dtype."""
        return torch.from_numpy(self.decode_values(payload, shape, bound)).to(dtype)


def check_size(name: str, payload: Sized, expected: int, shape: Shape) -> None:
    """Refuse a payload whose size does not fit its shape, before memory is taken for it.

    Args:
        name: of the codec.
        payload: what there is.
        expected: bytes that the shape calls for.
        shape: of the tensor.

    Raises:
        CodecError: the sizes differ.
    """
    if len(payload) != expected:
        raise CodecError(
            f"{name}: {len(payload)} bytes where {math.prod(shape)} values take {expected}"
        )
