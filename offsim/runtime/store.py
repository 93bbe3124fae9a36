"""Host memory: every expert of a model as a blob."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from offsim.codec import Codec
from offsim.codec.bounded import largest_error
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.model.experts import ExpertShape, expert_modules, matrices_of, shape_of


@dataclass(frozen=True)
class ExpertStore:
    """The experts of one model under one codec and bound.

    Attributes:
        shape: of the experts.
        codec: that made the blobs.
        bound: absolute, unit of the weights.
        blobs: [layer][expert].
        largest_error: largest |x - x'| in the stored dtype over all of them.
    """

    shape: ExpertShape
    codec: Codec
    bound: float
    blobs: list[list[ExpertBlob]]
    largest_error: float

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        codec: Codec,
        bound: float,
        dtype: torch.dtype = torch.bfloat16,
        progress: Callable[[], None] = lambda: None,
    ) -> "ExpertStore":
        """Compress every expert of a model from its stored dtype, and check every bound again."""
        shape = shape_of(model, dtype.itemsize)
        blobs, worst = [], 0.0
        for module in expert_modules(model):
            row = []
            for expert in range(shape.experts):
                matrices = [weights.to(dtype) for weights in matrices_of(module, expert)]
                blob = encode_expert(matrices, codec, bound)
                for number, before in enumerate(matrices):
                    worst = max(worst, largest_error(before, blob.decoded(number)))
                row.append(blob)
                progress()
            blobs.append(row)
        return cls(shape, codec, bound, blobs, worst)

    @property
    def nbytes(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.nbytes for row in self.blobs for blob in row)

    @property
    def ratio(self) -> float:
        """Stored bytes over blob bytes, against the stored dtype."""
        return sum(blob.stored_bytes for row in self.blobs for blob in row) / self.nbytes
