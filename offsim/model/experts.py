"""The experts of a model: where they are, how large they are, what they compute."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

import torch

from offsim.errors import InputError
from offsim.model.layouts import BIG, ExpertsModule, Layout, in_memory, is_driven, why_not

if TYPE_CHECKING:  # who reads experts alone does without the memory of transformers
    from transformers import PreTrainedModel

MATRICES = ("gate", "up", "down")
"""The weights of one expert, in the order in which they are stored."""
TOP_K = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k")
"""What configurations call the number of experts that a token takes."""


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """How the experts of a model are laid out.

    Attributes:
        layers: MoE layers.
        experts: experts a layer.
        hidden: width of the residual stream.
        width: width inside an expert.
        dtype_bytes: bytes of one stored weight (2 for bf16).
    """

    layers: int
    experts: int
    hidden: int
    width: int
    dtype_bytes: int = 2

    @property
    def values(self) -> int:
        """Weights of one expert."""
        return 3 * self.hidden * self.width

    @property
    def bytes(self) -> int:
        """Bytes of one expert in its stored dtype."""
        return self.values * self.dtype_bytes


class Experts(Protocol):
    """Where the weights of experts come from.

    Attributes:
        shape: of them.
    """

    @property
    def shape(self) -> ExpertShape:
        """Of them."""

    def identity(self, layer: int, expert: int) -> Hashable:
        """What two experts have in common whose weights are the same."""

    def matrices(self, layer: int, expert: int) -> Sequence[torch.Tensor]:
        """Gate [width, hidden], up [width, hidden] and down [hidden, width], in stored dtype."""


@dataclass(frozen=True)
class FirstExperts:
    """The experts of the first layers of others; fulfils `Experts`.

    Attributes:
        all: from which they are.
        layers: MoE layers; all where there are fewer.
    """

    all: Experts
    layers: int

    @property
    def shape(self) -> ExpertShape:
        """Of them."""
        shape = self.all.shape
        return replace(shape, layers=min(self.layers, shape.layers))

    def identity(self, layer: int, expert: int) -> Hashable:
        """What two experts have in common whose weights are the same."""
        return self.all.identity(layer, expert)

    def matrices(self, layer: int, expert: int) -> Sequence[torch.Tensor]:
        """Gate [width, hidden], up [width, hidden] and down [hidden, width], in stored dtype."""
        return self.all.matrices(layer, expert)


def expert_modules(model: "PreTrainedModel") -> list[ExpertsModule]:
    """The experts module of each MoE layer, in layer order; dense layers have none.

    Raises:
        InputError: the model has none that offsim can drive; it says what is missing.
    """
    found = [module for module in model.modules() if is_driven(module)]
    if not found:
        raise InputError(f"{type(model).__name__} {why_not(model)}")
    return cast(list[ExpertsModule], found)


def shape_of(model: "PreTrainedModel", dtype_bytes: int = 2) -> ExpertShape:
    """Layout of a model's experts; every MoE layer must have the same."""
    modules = expert_modules(model)
    shapes = {Layout.of(module).sizes(module) for module in modules}
    if len(shapes) != 1:
        raise InputError(f"{type(model).__name__}: layers with different experts {sorted(shapes)}")
    experts, hidden, width = shapes.pop()
    return ExpertShape(len(modules), experts, hidden, width, dtype_bytes)


def top_k_of(model: "PreTrainedModel") -> int:
    """Experts that a token takes in each MoE layer.

    Raises:
        InputError: the configuration has none of the names for it (TOP_K).
    """
    config = model.config.get_text_config()
    found = next((getattr(config, name) for name in TOP_K if hasattr(config, name)), None)
    if not isinstance(found, int):
        raise InputError(
            f"the configuration of {type(model).__name__} does not say how many experts a token "
            f"takes ({', '.join(TOP_K)})"
        )
    return found


def matrices_of(module: ExpertsModule, expert: int) -> tuple[torch.Tensor, ...]:
    """Gate [width, hidden], up [width, hidden] and down [hidden, width] of one expert, as views.

    Raises:
        InputError: the model was loaded without its experts.
    """
    gate_up, down = (in_memory(getattr(module, name))[expert].detach() for name in BIG)
    return Layout.of(module).matrices(gate_up, down)


@torch.no_grad()
def change_experts(
    model: "PreTrainedModel", change: Callable[[int, int, int, torch.Tensor], torch.Tensor]
) -> None:
    """Overwrite every expert matrix with `change(layer, expert, matrix, weights)`.

    Args:
        model: changed in place.
        change: gets the indices (matrix 0..2 as in MATRICES) and the weights; returns the same
            shape.
    """
    for layer, module in enumerate(expert_modules(model)):
        for expert in range(shape_of(model).experts):
            for index, weights in enumerate(matrices_of(module, expert)):
                weights.copy_(change(layer, expert, index, weights))


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """One expert ready to compute.

    Attributes:
        gate_up: [2 width, hidden], gate first.
        down: [hidden, width].
    """

    gate_up: torch.Tensor
    down: torch.Tensor

    @classmethod
    def of(cls, module: ExpertsModule, expert: int) -> "ExpertWeights":
        """Those of a module: views where it keeps them in this form, else copies.

        Raises:
            InputError: the model was loaded without its experts.
        """
        gate, up, down = matrices_of(module, expert)
        if Layout.of(module) == Layout(transposed=False, interleaved=False):
            return cls(module.gate_up_proj[expert].detach(), down)
        return cls(torch.cat((gate, up)), down.contiguous())

    @property
    def matrices(self) -> tuple[torch.Tensor, ...]:
        """Gate [width, hidden], up [width, hidden] and down [hidden, width], as views."""
        return *self.gate_up.chunk(2), self.down

    @classmethod
    def over(cls, flat: torch.Tensor, shape: ExpertShape) -> "ExpertWeights":
        """Views on one flat slot [3 * width * hidden]: gate, up, down one after the other."""
        border = 2 * shape.width * shape.hidden
        return cls(
            flat[:border].view(2 * shape.width, shape.hidden),
            flat[border:].view(shape.hidden, shape.width),
        )

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """SwiGLU feed-forward of hidden states [tokens, hidden]; same shape out."""
        gate, up = torch.nn.functional.linear(hidden, self.gate_up).chunk(2, dim=-1)
        return torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, self.down)


def distinct(ids: Sequence[Sequence[int]]) -> list[int]:
    """Distinct experts of a step in router order: by token, then by slot."""
    return list(dict.fromkeys(expert for row in ids for expert in row))


def mixed(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    ready: Iterable[tuple[int, Callable[[torch.Tensor], torch.Tensor]]],
) -> torch.Tensor:
    """The output of an MoE layer, with the experts run in the order in which they come.

    Each expert writes into its own place and the sum over the top-k is taken once, at the end, so
    the result does not depend on the order: a run with offloaded experts gives the same bits as
    one with resident experts.

    Args:
        hidden: [tokens, hidden].
        ids: [tokens, top_k] int64, the router's choice.
        weights: [tokens, top_k], its weights.
        ready: each distinct expert once, with what gives the output [rows, hidden] for the hidden
            states [rows, hidden] of the tokens that it serves, in their order: its weights.

    Returns:
        [tokens, hidden].
    """
    tokens, top_k = ids.shape
    parts = hidden.new_empty(tokens, top_k, hidden.shape[-1])
    if tokens == 1:
        slots = {expert: slot for slot, expert in enumerate(ids[0].tolist())}
        for expert, ffn in ready:
            parts[0, slots[expert]] = ffn(hidden)[0]
    else:
        for expert, ffn in ready:
            token, slot = torch.where(ids == expert)
            parts[token, slot] = ffn(hidden[token])
    return (parts * weights.unsqueeze(-1)).sum(1)
