"""The one hook through which experts run: recorder, error injector and offloading are handlers.

transformers (5.0 and later) calls the function that is registered under the model's experts
implementation with the hidden states, the router's ids and its weights, once per MoE layer and
step. offsim registers one function, which passes the call on to the handler of that layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from offsim.model.experts import ExpertWeights, distinct, expert_modules, mixed

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
    """A handler that runs the model's own experts, all in memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.experts = [
            [
                ExpertWeights(module.gate_up_proj[e].detach(), module.down_proj[e].detach())
                for e in range(len(module.down_proj))
            ]
            for module in expert_modules(model)
        ]

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Run the chosen experts of a layer in router order."""
        chosen = distinct(ids.tolist())
        return mixed(hidden, ids, weights, ((e, self.experts[layer][e]) for e in chosen))
