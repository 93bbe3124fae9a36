"""A model under each codec and bound: its blobs, and the trace that it then leaves."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import torch
from transformers import PreTrainedModel

from offsim.model.experts import change_experts
from offsim.model.sampling import Sampling
from offsim.runtime.store import ExpertStore
from offsim.trace import Trace
from offsim.trace.format import TraceInfo
from offsim.trace.recorder import record

Key = tuple[str, float]
"""A codec's name and an absolute bound."""


@dataclass(frozen=True)
class Recorded:
    """What a model did with all of its experts resident, as a codec and bound leave them.

    Attributes:
        trace: of the router.
        tokens: written for each request.
    """

    trace: Trace
    tokens: list[list[int]]


def under(model: PreTrainedModel, store: ExpertStore) -> PreTrainedModel:
    """A copy of the model whose resident experts are those of the store, decoded."""
    changed = copy.deepcopy(model)

    def change(layer: int, expert: int, matrix: int, weights: torch.Tensor) -> torch.Tensor:
        return store.blobs[layer][expert].decoded(matrix).to(weights.dtype)

    change_experts(changed, change)
    return changed


def info_of(name: str, store: ExpertStore, requests: str) -> TraceInfo:
    """The metadata of a trace that is recorded today.

    Args:
        name: of the model.
        store: its experts.
        requests: that it answers, in words.
    """
    return TraceInfo(
        model=name,
        experts_per_layer=store.shape.experts,
        source=f"recorded by offsim on {date.today()}, {requests}",
        codec=store.codec.name,
        bound=store.bound,
    )


def recorded(
    model: PreTrainedModel,
    name: str,
    store: ExpertStore,
    prompts: Sequence[Sequence[int]],
    count: int,
    lookahead: int = 0,
    sampling: Sampling | None = None,
) -> Recorded:
    """Record the model as the store leaves it, its routers asked `lookahead` layers ahead too.

    An error changes what the router chooses, so each codec and bound has a trace of its own.
    """
    info = info_of(name, store, f"{len(prompts)} requests of mixed tasks")
    changed = under(model, store)
    return Recorded(*record(changed, prompts, count, info, lookahead, sampling=sampling))
