"""How transformers keeps the experts of one layer, and how they are read as offsim has them.

offsim has gate [width, hidden], up [width, hidden] and down [hidden, width] for every
architecture. A module that keeps them otherwise says so itself (transformers' experts interface).
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from offsim.errors import InputError

BIG = ("gate_up_proj", "down_proj")
"""The parameters that hold matrices of experts; any other is small and stays with the model."""


class ExpertsModule(Protocol):
    """What transformers keeps for the experts of one layer.

    Attributes:
        gate_up_proj: [experts, 2 width, hidden], or [experts, hidden, 2 width] if transposed.
        down_proj: [experts, hidden, width], or [experts, width, hidden] if transposed.
        is_transposed: whether a matrix has its inputs first.
        is_concatenated: whether all of gate comes before all of up; else they take turns.
        has_gate: whether there is a gate at all.
        has_bias: whether there are `gate_up_proj_bias` [experts, 2 width], in the order of
            `gate_up_proj`, and `down_proj_bias` [experts, hidden].
    """

    gate_up_proj: torch.Tensor
    down_proj: torch.Tensor
    is_transposed: bool
    is_concatenated: bool
    has_gate: bool
    has_bias: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The order in which a module keeps the matrices of its experts.

    Attributes:
        transposed: whether a matrix has its inputs first.
        interleaved: whether rows of gate and up take turns.
    """

    transposed: bool
    interleaved: bool

    @classmethod
    def of(cls, module: ExpertsModule) -> "Layout":
        """That of a module."""
        return cls(module.is_transposed, not module.is_concatenated)

    def matrices(self, gate_up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gate [width, hidden], up [width, hidden] and down [hidden, width], as views.

        Args:
            gate_up: of one expert, as the module keeps it.
            down: likewise.
        """
        if self.transposed:
            gate_up, down = gate_up.T, down.T
        return *self.halves(gate_up), down

    def halves(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What belongs to gate and to up, [width, ...] each, as views.

        Args:
            rows: [2 width, ...], in the order of the module.
        """
        if self.interleaved:
            return rows[0::2], rows[1::2]
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    def outputs(self, gate_up: torch.Tensor) -> torch.Tensor:
        """Outputs of gate and up [tokens, 2 width], gate first, in the order of the module."""
        if not self.interleaved:
            return gate_up
        return torch.stack(gate_up.chunk(2, -1), -1).flatten(-2)

    def sizes(self, module: ExpertsModule) -> tuple[int, int, int]:
        """Experts, hidden and width of a module."""
        experts, rows, columns = module.down_proj.shape
        return (experts, columns, rows) if self.transposed else (experts, rows, columns)


def is_driven(module: torch.nn.Module) -> bool:
    """Whether transformers lets other code run the experts of a module, in a form known here."""
    return bool(
        all(isinstance(getattr(module, name, None), torch.Tensor) for name in BIG)
        and module.gate_up_proj.ndim == 3
        and hasattr(module, "is_transposed")
        and not getattr(module, "has_post_expert_norm", False)
    )


def why_not(model: torch.nn.Module) -> str:
    """What a model without experts that can be driven lacks, as a sentence without its name."""
    kinds = (type(module) for module in model.modules())
    own = next((kind.__name__ for kind in kinds if "Expert" in kind.__name__), None)
    if own is None:
        return "has no fused experts (gate_up_proj [experts, 2 width, hidden])"
    return (
        f"cannot be driven: its {own} does not run through the experts interface of transformers "
        "with a gate, an up and a down matrix, so nothing can run in its place"
    )


def in_memory(tensor: torch.Tensor) -> torch.Tensor:
    """A weight of an expert.

    Raises:
        InputError: the model was loaded without it (`offsim.model.load`).
    """
    if tensor.is_meta:
        raise InputError(
            "the model was loaded without its experts; run it offloaded, with a store of them, or "
            "load all of it"
        )
    return tensor
