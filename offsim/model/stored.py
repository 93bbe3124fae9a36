"""How checkpoints store experts: a row of `LAYOUTS` for each way. A new way is a new row.

The names are those of transformers and of the model makers; `docs/checkpoints.md` says which model
has which.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import torch

IN_LAYER = re.compile(r"(?P<block>(?:(?!mtp\b)\w+\.)*layers\.(?P<layer>\d+)\.\w+\.)(?P<rest>.+)")
"""The name of a tensor of a layer's block: `model.layers.3.mlp.experts.0.up_proj.weight`. What is
under `mtp` predicts later tokens and is no layer of the model."""
OF_EXPERT = re.compile(r"experts\.(?P<expert>\d+)\.")
EXPERT = "experts.{}."


@dataclass(frozen=True, slots=True)
class StoredAs:
    """One way to store the experts of a layer.

    Attributes:
        title: in words.
        names: what follows the name of the layer's block, of gate, up and down, or of gate and up
            in one tensor and down. With `{}` for the expert each has a tensor of its own; without
            it the first axis is the expert's.
        beside: another name that a layer in this layout has; empty for none.
        transposed: whether a matrix is stored [in, out] rather than [out, in].
        interleaved: whether the rows of gate and up alternate, rather than gate coming first.
    """

    title: str
    names: tuple[str, ...]
    beside: str = ""
    transposed: bool = False
    interleaved: bool = False

    @property
    def stacked(self) -> bool:
        """Whether one tensor has all experts of a layer."""
        return "{}" not in self.names[0]

    def fits(self, names: Collection[str]) -> bool:
        """Whether a layer with tensors of these names is stored so."""
        return {*self.names, *([self.beside] if self.beside else [])} <= set(names)

    def matrices(self, parts: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Gate, up and down of what the names stand for; the next part is taken when it is needed.

        Args:
            parts: the 2-D tensors of one expert, in the order of `names`, not packed any more.

        Returns:
            Gate [width, hidden], up [width, hidden] and down [hidden, width], contiguous.
        """
        each = map(torch.t, parts) if self.transposed else iter(parts)
        if len(self.names) == 2:
            yield from self._halves(next(each))
        yield from map(torch.Tensor.contiguous, each)  # holds none while the next one is made

    def _halves(self, both: torch.Tensor) -> list[torch.Tensor]:
        """Gate and up of the tensor that has both, contiguous."""
        halves = (both[0::2], both[1::2]) if self.interleaved else both.chunk(2)
        return [half.contiguous() for half in halves]


LAYOUTS = (
    StoredAs(
        "gate_proj, up_proj and down_proj of each expert",
        tuple(f"{EXPERT}{name}_proj.weight" for name in ("gate", "up", "down")),
    ),
    StoredAs(
        "w1, w3 and w2 of each expert",
        tuple(f"{EXPERT}{name}.weight" for name in ("w1", "w3", "w2")),
    ),
    StoredAs(
        "gate_up_proj and down_proj of all experts, transposed, gate and up interleaved",
        ("experts.gate_up_proj", "experts.down_proj"),
        beside="experts.gate_up_proj_bias",
        transposed=True,
        interleaved=True,
    ),
    StoredAs(
        "gate_up_proj and down_proj of all experts in MXFP4, gate and up interleaved",
        ("experts.gate_up_proj_blocks", "experts.down_proj_blocks"),
        interleaved=True,
    ),
    StoredAs(
        "gate_up_proj and down_proj of all experts", ("experts.gate_up_proj", "experts.down_proj")
    ),
    StoredAs(
        "input_linear and output_linear of all experts",
        ("input_linear.weight", "output_linear.weight"),
    ),
)
"""The first that fits is taken."""


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a tensor says.

    Attributes:
        layer: number of the layer.
        block: everything up to the block of the layer, such as `model.layers.3.mlp.`.
        rest: what follows, with `{}` for the expert.
        expert: 0 where the name has none.
    """

    layer: int
    block: str
    rest: str
    expert: int

    @classmethod
    def of(cls, name: str) -> "Named | None":
        """None for a tensor that is in no block of a layer."""
        found = IN_LAYER.fullmatch(name)
        if found is None:
            return None
        rest, expert = found["rest"], OF_EXPERT.match(found["rest"])
        if expert is not None:
            rest = EXPERT + rest[expert.end() :]
        number = int(expert["expert"]) if expert is not None else 0
        return cls(int(found["layer"]), found["block"], rest, number)
