"""Host memory: every expert of a model as a blob."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from offsim.codec import Codec, codec_named
from offsim.codec.bounded import largest_error
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.errors import InputError
from offsim.model.experts import Experts, ExpertShape, expert_modules, matrices_of, shape_of
from offsim.policy.bounds import Bounds, bounds_of, check_one_place, codecs_of
from offsim.policy.policy import Policy
from offsim.policy.tiers import Sizes


@dataclass(frozen=True)
class _Own:
    """The experts of a model, all of them different."""

    model: PreTrainedModel
    dtype: torch.dtype

    @property
    def shape(self) -> ExpertShape:
        return shape_of(self.model, self.dtype.itemsize)

    def identity(self, layer: int, expert: int) -> Hashable:
        return layer, expert

    def matrices(self, layer: int, expert: int) -> Sequence[torch.Tensor]:
        module = expert_modules(self.model)[layer]
        return [weights.to(self.dtype).contiguous() for weights in matrices_of(module, expert)]


@dataclass(frozen=True)
class ExpertStore:
    """The experts of one model under one codec and bound.

    Attributes:
        shape: of the experts.
        codec: that made the blobs; where the table names others, all that it does not.
        bound: absolute, unit of the weights; the loosest of any matrix where they differ.
        blobs: [layer][expert]; experts with the same weights share one.
        largest_error: largest |x - x'| in the stored dtype over all of them.
        bounds: the table of bounds that it was made under, if any.
        low: the same experts as coarser blobs, for misses of low weight; None where all come alike.
    """

    shape: ExpertShape
    codec: Codec
    bound: float
    blobs: list[list[ExpertBlob]]
    largest_error: float
    bounds: Bounds | None = None
    low: "ExpertStore | None" = None

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
            InputError: a weight that is not finite, a bound that is not a positive number, a table
                about a layer or an expert that the model does not have, or one whose codecs decode
                in different places.
        """
        return cls.holding(_Own(model, dtype), codec, bound, progress)

    @classmethod
    def holding(
        cls,
        experts: Experts,
        codec: Codec,
        bound: float | Bounds,
        progress: Callable[[], None] = lambda: None,
    ) -> "ExpertStore":
        """Compress experts, those with the same weights and bounds once; see `of`.

        Args:
            experts: all of a model.
            codec: that compresses.
            bound: absolute and the same for all, or a bound for each matrix.
            progress: called after each place, whether its expert was known or not.

        Raises:
            InputError: as for `of`.
        """
        shape = experts.shape
        if isinstance(bound, Bounds):
            bound.table(shape.layers, shape.experts)  # refuses places that are not there
            check_one_place(codec, bound)
        known: dict[Hashable, ExpertBlob] = {}
        blobs, worst, loosest = [], 0.0, 0.0
        for layer in range(shape.layers):
            row = []
            for expert in range(shape.experts):
                forms = bound if isinstance(bound, float) else bound.of(layer, expert)
                identity = (experts.identity(layer, expert), forms)
                if identity not in known:
                    matrices = experts.matrices(layer, expert)
                    if isinstance(forms, float):
                        blob = encode_expert(matrices, codec, forms)
                    else:
                        each = codecs_of(forms, codec)
                        blob = encode_expert(matrices, each, bounds_of(forms))
                    known[identity] = blob
                    loosest = max(loosest, *(part.header.bound for part in blob.blobs))
                    for number, before in enumerate(matrices):
                        worst = max(worst, largest_error(before, blob.decoded(number)))
                row.append(known[identity])
                progress()
            blobs.append(row)
        if isinstance(bound, Bounds):
            return cls(shape, codec, loosest, blobs, worst, bound)
        return cls(shape, codec, bound, blobs, worst)

    @property
    def codecs(self) -> list[Codec]:
        """All that made blobs: the one that is not named otherwise, and those of the table."""
        named = () if self.bounds is None else self.bounds.codecs
        return [self.codec, *map(codec_named, named)]

    def first(self, layers: int) -> "ExpertStore":
        """The same without the layers after the first so many."""
        shape = replace(self.shape, layers=min(layers, self.shape.layers))
        low = None if self.low is None else self.low.first(layers)
        return replace(self, shape=shape, blobs=self.blobs[: shape.layers], low=low)

    @property
    def coarser(self) -> "ExpertStore":
        """The store of coarser blobs, where there is one; else this one."""
        return self.low or self

    def policy(self, **others: Any) -> Policy:
        """A policy under which experts are stored as they are here.

        Args:
            **others: fields of the policy other than codec, bound and bounds.
        """
        bound = self.bound if self.bounds is None else 0.0
        return Policy(codec=str(self.codec), bound=bound, bounds=self.bounds, **others)

    def check(self, policy: Policy) -> None:
        """Refuse a policy under which experts would be stored otherwise.

        Raises:
            InputError: codec, bound or table of bounds are not those of the store, or the coarser
                blobs that the policy asks for are not there.
        """
        own = self.policy()
        asked = (codec_named(policy.codec), policy.bound, policy.bounds)
        if asked != (self.codec, own.bound, own.bounds):
            raise InputError(
                f"the experts are stored under {_named(own)} and the policy asks for "
                f"{_named(policy)}; make a store under the policy's codec and bound"
            )
        if policy.low is not None:
            coarse = Policy(codec=policy.low.codec, bound=policy.low.bound)
            if self.low is None or self.low.shape != self.shape:
                raise InputError(
                    f"misses of low weight come under {coarse.storage} and the store has no such "
                    "blobs of the same experts; give it a store of them as `low`"
                )
            self.low.check(coarse)

    def link_bytes(self, layer: int, expert: int) -> int:
        """Bytes that cross the link: the blob, or the stored bytes where the host decodes."""
        blob = self.blobs[layer][expert]
        return blob.stored_bytes if self.codec.placement == "host" else blob.nbytes

    @property
    def sizes(self) -> Sizes:
        """Bytes of experts in host memory and on the device."""
        return Sizes(lambda key: self.blobs[key[0]][key[1]].nbytes, self.shape.bytes)

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


def _named(policy: Policy) -> str:
    """Codec and bound, or codec and what tells tables of bounds apart."""
    return policy.storage if policy.bounds is None else policy.key[0]
