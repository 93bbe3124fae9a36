"""One expert as blobs: its three matrices, each with its own bound."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.base import Codec
from offsim.codec.blob import Blob
from offsim.codec.bounded import decode, encode
from offsim.codec.bounds import Bound, absolute_bounds
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
    matrices: Iterable[torch.Tensor],
    codec: Codec | Sequence[Codec],
    bounds: Sequence[Bound | None] | float = 0.0,
) -> ExpertBlob:
    """Compress the matrices of an expert, in their stored dtype.

    Args:
        matrices: any shapes; bf16, fp16 or float32. One is held at a time, unless a bound is a
            statistic of them all.
        codec: what compresses; one for all, or one a matrix.
        bounds: one a matrix, or one absolute bound for all; ignored by a codec that takes none. A
            `mean-abs` or other statistic is that of the expert. Where it comes to 0, because all
            weights are equal, the matrix is stored raw.

    Raises:
        InputError: a value that is not finite, or a bound that is not a positive number.
    """
    # Not a loop: its variable would hold a matrix while the next one is made.
    codecs: Iterable[Codec] = repeat(codec) if isinstance(codec, Codec) else codec
    if isinstance(codec, Codec) and codec.promise != "bound":
        return ExpertBlob(tuple(map(partial(encode, codec=codec), matrices)))
    if isinstance(bounds, float):
        wanted: Iterable[float | None] = repeat(Bound(bounds).value)
    else:
        matrices, wanted = absolute_bounds(matrices, bounds)
    return ExpertBlob(tuple(map(_encoded, matrices, codecs, wanted)))


def _encoded(matrix: torch.Tensor, codec: Codec, bound: float | None) -> Blob:
    if codec.promise == "bound" and bound == 0:
        codec = Raw()
    return encode(matrix, codec, bound or 0.0)
