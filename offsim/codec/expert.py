"""One expert as blobs: its three matrices, each with its own bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.base import Codec
from offsim.codec.blob import Blob
from offsim.codec.bounded import decode, encode


@dataclass(frozen=True, slots=True)
class ExpertBlob:
    """The gate, up and down matrices of one expert, compressed."""

    blobs: tuple[Blob, ...]

    @property
    def nbytes(self) -> int:
        """Payload bytes of the three."""
        return sum(blob.nbytes for blob in self.blobs)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the three in their stored dtype."""
        return sum(blob.count * blob.torch_dtype.itemsize for blob in self.blobs)

    def payloads(self) -> list[npt.NDArray[np.uint8]]:
        """The payloads, as read-only arrays [bytes] uint8 without a copy."""
        return [np.frombuffer(blob.payload, np.uint8) for blob in self.blobs]

    def decoded(self, matrix: int) -> torch.Tensor:
        """One matrix (0 gate, 1 up, 2 down) in its stored dtype and shape."""
        return decode(self.blobs[matrix])


def encode_expert(matrices: Sequence[torch.Tensor], codec: Codec, bound: float) -> ExpertBlob:
    """Compress the matrices of an expert, in their stored dtype, under one bound."""
    return ExpertBlob(tuple(encode(matrix, codec, bound) for matrix in matrices))
