"""One expert as blobs: its three matrices, each with its own bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.base import Codec
from offsim.codec.blob import Blob
from offsim.codec.bounded import decode, encode
from offsim.codec.bounds import Bound
from offsim.codec.raw import Raw


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


def encode_expert(
    matrices: Sequence[torch.Tensor], codec: Codec, bounds: Sequence[Bound] | float = 0.0
) -> ExpertBlob:
    """Compress the matrices of an expert, in their stored dtype.

    Args:
        matrices: any shapes; bf16, fp16 or float32.
        codec: what compresses.
        bounds: one a matrix, or one absolute bound for all; ignored by a codec that takes none. A
            `mean-abs` or other statistic is that of the expert. Where it comes to 0, because all
            weights are equal, the matrix is stored raw.

    Raises:
        InputError: a value that is not finite, or a bound that is not a positive number.
    """
    if codec.promise != "bound":
        return ExpertBlob(tuple(encode(matrix, codec) for matrix in matrices))
    if isinstance(bounds, float):
        bounds = [Bound(bounds)] * len(matrices)
    wanted = {bound: bound.absolute(matrices) for bound in bounds}
    pairs = zip(matrices, (wanted[bound] for bound in bounds), strict=True)
    return ExpertBlob(tuple(encode(m, codec if b else Raw(), b) for m, b in pairs))
