"""Host memory: every expert of a model as a blob."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from offsim.codec import Codec
from offsim.codec.bounded import largest_error
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.model.experts import ExpertShape, expert_modules, matrices_of, shape_of
from offsim.policy.bounds import Bounds


@dataclass(frozen=True)
class ExpertStore:
    """The experts of one model under one codec and bound.

    Attributes:
        shape: of the experts.
        codec: that made the blobs.
        bound: absolute, unit of the weights; the loosest of any matrix where they differ.
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
        bound: float | Bounds,
        dtype: torch.dtype = torch.bfloat16,
        progress: Callable[[], None] = lambda: None,
    ) -> "ExpertStore":
        """Compress every expert of a model from its stored dtype, and check every bound again.

        Args:
            model: whose experts to store.
            codec: that compresses.
            bound: absolute and the same for all, or a bound for each matrix.
            dtype: that the checkpoint stores.
            progress: called after each expert.

        Raises:
            InputError: a weight that is not finite, a bound that is not a positive number, or a
                table about a layer or an expert that the model does not have.
        """
        shape = shape_of(model, dtype.itemsize)
        if isinstance(bound, Bounds):
            bound.table(shape.layers, shape.experts)  # refuses places that are not there
        blobs, worst, loosest = [], 0.0, 0.0
        for layer, module in enumerate(expert_modules(model)):
            row = []
            for expert in range(shape.experts):
                matrices = [weights.to(dtype) for weights in matrices_of(module, expert)]
                bounds = bound if isinstance(bound, float) else bound.of(layer, expert)
                blob = encode_expert(matrices, codec, bounds)
                loosest = max(loosest, *(part.header.bound for part in blob.blobs))
                for number, before in enumerate(matrices):
                    worst = max(worst, largest_error(before, blob.decoded(number)))
                row.append(blob)
                progress()
            blobs.append(row)
        kept = bound if isinstance(bound, float) else loosest
        return cls(shape, codec, kept, blobs, worst)

    def link_bytes(self, layer: int, expert: int) -> int:
        """Bytes that cross the link: the blob, or the stored bytes where the host decodes."""
        blob = self.blobs[layer][expert]
        return blob.stored_bytes if self.codec.placement == "host" else blob.nbytes

    @property
    def blob_bytes(self) -> list[list[int]]:
        """[layers][experts] bytes of each expert's blob."""
        return [[sum(parts) for parts in row] for row in self.matrix_bytes]

    @property
    def matrix_bytes(self) -> list[list[list[int]]]:
        """[layers][experts][3] bytes of the blobs of gate, up and down."""
        return [[[blob.nbytes for blob in one.blobs] for one in row] for row in self.blobs]

    @property
    def nbytes(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.nbytes for row in self.blobs for blob in row)

    @property
    def ratio(self) -> float:
        """Stored bytes over blob bytes, against the stored dtype."""
        return sum(blob.stored_bytes for row in self.blobs for blob in row) / self.nbytes
