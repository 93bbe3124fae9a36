"""The one hook through which experts run: recorder, error injector and offloading are handlers.

transformers (5.0 and later) calls the function that is registered under the model's experts
implementation with the hidden states, the router's ids and its weights, once per MoE layer and
step. offsim registers one function, which passes the call on to the handler of that layer.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, cast

import torch
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from offsim.model.experts import Experts, ExpertWeights, distinct, expert_modules, mixed
from offsim.model.formulas import formula_of

NAME = "offsim"


class Handler(Protocol):
    """Runs the experts of one layer and step."""

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states [tokens, hidden], ids [tokens, top_k] int64, weights [tokens, top_k]."""


def _dispatch(
    module: torch.nn.Module, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    layer, handler = cast(tuple[int, Handler], module.offsim)
    return handler(layer, hidden, ids, weights)


ALL_EXPERTS_FUNCTIONS.register(NAME, _dispatch)


@contextmanager
def handled(model: PreTrainedModel, handler: Handler) -> Iterator[None]:
    """Within the block, every MoE layer of the model runs through `handler`; blocks may nest."""
    modules = expert_modules(model)
    before = model.config._experts_implementation
    handlers = [getattr(module, NAME, None) for module in modules]
    try:
        for layer, module in enumerate(modules):
            setattr(module, NAME, (layer, handler))
        model.set_experts_implementation(NAME)
        yield
    finally:
        model.set_experts_implementation(before)
        for module, earlier in zip(modules, handlers, strict=True):
            if earlier is None:
                delattr(module, NAME)
            else:
                setattr(module, NAME, earlier)


class Resident:
    """A handler that runs the model's own experts, all in memory.

    Experts that the model keeps in another form than `ExpertWeights` (gpt-oss) are copied: they
    compute then as offloaded ones do, to the last bit.

    Args:
        model: not changed.

    Attributes:
        experts: [layers][experts].

    Raises:
        InputError: the model has none that offsim can drive, or was loaded without them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.experts = [
            [ExpertWeights.of(module, expert) for expert in range(len(module.down_proj))]
            for module in expert_modules(model)
        ]
        self._formula = formula_of(model)

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Run the chosen experts of a layer in router order."""
        own, formula = self.experts[layer], self._formula
        chosen = distinct(ids.tolist())
        return mixed(hidden, ids, weights, ((e, formula(layer, e, own[e])) for e in chosen))


class Fetched:
    """A handler that reads experts where they are used first, and keeps as many as have room.

    They compute in float32, as offloaded ones do, to the last bit. Those that were used last stay.

    Args:
        model: whose own experts are not used; it may have been loaded without them.
        experts: those that run in their place.
        keep_bytes: of memory for experts in float32, where hidden states are; one has room in any
            case.

    Raises:
        InputError: the model has no experts that offsim can drive.
    """

    def __init__(self, model: PreTrainedModel, experts: Experts, keep_bytes: int) -> None:
        self._experts, self._formula = experts, formula_of(model)
        self._most = max(1, keep_bytes // (experts.shape.values * torch.float32.itemsize))
        self._kept: OrderedDict[tuple[int, int], ExpertWeights] = OrderedDict()

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Run the chosen experts of a layer in router order."""
        chosen = distinct(ids.tolist())
        weights_of = partial(self._weights, place=hidden.device)
        ready = ((e, self._formula(layer, e, weights_of(layer, e))) for e in chosen)
        return mixed(hidden, ids, weights, ready)

    def _weights(self, layer: int, expert: int, place: torch.device) -> ExpertWeights:
        key = (layer, expert)
        if key not in self._kept:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            matrices = self._experts.matrices(layer, expert)
            flat = torch.cat([weights.float().flatten() for weights in matrices])
            self._kept[key] = ExpertWeights.over(flat.to(place), self._experts.shape)
        self._kept.move_to_end(key)
        return self._kept[key]
