"""What experts compute beside their weights: the activation and the biases of their layer."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from offsim.model.experts import ExpertWeights, expert_modules
from offsim.model.layouts import ExpertsModule, Layout

FeedForward = Callable[[torch.Tensor], torch.Tensor]
"""Gives the output [tokens, hidden] of an expert for hidden states [tokens, hidden]."""
Formula = Callable[[int, int, ExpertWeights], FeedForward]
"""Gives what an expert of a layer computes with some weights: of layer, expert and weights."""


def plain(layer: int, expert: int, weights: ExpertWeights) -> FeedForward:
    """SwiGLU with SiLU and without biases, which the weights compute by themselves."""
    return weights


def formula_of(model: PreTrainedModel) -> Formula:
    """What the experts of a model compute; `plain` itself where that is all of it.

    Biases and activations are those that the model has when an expert runs, wherever it is then.

    Raises:
        InputError: the model has no experts that offsim can drive.
    """
    modules = expert_modules(model)
    if all(is_plain(module) for module in modules):
        return plain
    return partial(_own, modules)


def is_plain(module: ExpertsModule) -> bool:
    """Whether the experts of a layer compute no more than `plain`; its gate is asked for values."""
    if module.has_bias:
        return False
    gate_up = torch.linspace(-9.0, 9.0, 128, device="cpu").view(2, 64)
    gate, up = gate_up.chunk(2, -1)
    return torch.equal(_gated(module, gate_up), torch.nn.functional.silu(gate) * up)


def _own(
    modules: list[ExpertsModule], layer: int, expert: int, weights: ExpertWeights
) -> FeedForward:
    return partial(_run, modules[layer], expert, weights)


def _run(
    module: ExpertsModule, expert: int, weights: ExpertWeights, hidden: torch.Tensor
) -> torch.Tensor:
    """The feed-forward of an expert with the activation and the biases of its module."""
    inner_bias = outer_bias = None
    if module.has_bias:
        own = cast(Any, module)
        inner_bias = torch.cat(Layout.of(module).halves(own.gate_up_proj_bias[expert]))
        outer_bias = own.down_proj_bias[expert]
    gate_up = torch.nn.functional.linear(hidden, weights.gate_up, inner_bias)
    return torch.nn.functional.linear(_gated(module, gate_up), weights.down, outer_bias)


def _gated(module: ExpertsModule, gate_up: torch.Tensor) -> torch.Tensor:
    """What the module makes of outputs of gate and up [tokens, 2 width], gate first."""
    given = Layout.of(module).outputs(gate_up)
    return cast(torch.Tensor, cast(Any, module)._apply_gate(given))
