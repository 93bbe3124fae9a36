"""Error bounds as designers state them, and the absolute bound that each comes to."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from offsim.errors import InputError

Kind = Literal["abs", "rel", "mean-abs", "sigma"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound, in one of four units.

    Attributes:
        value: > 0, of the unit of the kind.
        kind: `abs`: the unit of the weights. `rel`: the value range, max - min, as SZ3 and cuSZp
            have it. `mean-abs`: the mean of |w|. `sigma`: the standard deviation.

    Raises:
        InputError: a value that is not a positive number, or no such kind.
    """

    value: float
    kind: Kind = "abs"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no bound is called {self.kind!r}; there are {', '.join(KINDS)}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise InputError(f"an error bound is a positive number, not {self.value:g}")

    @classmethod
    def parse(cls, text: str) -> "Bound":
        """From text such as `0.001` or `rel:1e-2`.

        Raises:
            InputError: it is not a bound.
        """
        kind, colon, value = text.rpartition(":")
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{text!r} is not a bound; write 0.001 or rel:1e-2") from None
        return cls(number, kind if colon else "abs")  # type: ignore[arg-type]  # checked there

    def __str__(self) -> str:
        return f"{self.value:g}" if self.kind == "abs" else f"{self.kind}:{self.value:g}"

    def absolute(self, matrices: Sequence[torch.Tensor]) -> float:
        """The bound in the unit of the weights.

        Statistics are those of all matrices together: with the three of an expert, `mean-abs` is
        the mean over the expert.

        Args:
            matrices: any shapes, bf16, fp16 or float32.

        Returns:
            0 where the statistic is 0, as for weights that are all equal: only exact weights
            keep such a bound.
        """
        if self.kind == "abs":
            return self.value
        kept = [matrix.reshape(-1) for matrix in matrices if matrix.numel()]
        if not kept:
            return 0.0
        count = sum(len(matrix) for matrix in kept)
        if self.kind == "rel":
            ends = [torch.aminmax(matrix) for matrix in kept]
            unit = max(float(high) for _, high in ends) - min(float(low) for low, _ in ends)
        elif self.kind == "mean-abs":
            unit = sum(float(part.abs_().sum()) for part in _widened(kept)) / count
        else:
            mean = sum(float(part.sum()) for part in _widened(kept)) / count
            squares = (float(part.sub_(mean).square_().sum()) for part in _widened(kept))
            unit = math.sqrt(sum(squares) / count)
        return self.value * unit


def absolute_bounds(
    matrices: Iterable[torch.Tensor], bounds: Sequence[Bound | None]
) -> tuple[Iterable[torch.Tensor], list[float | None]]:
    """What the bounds of an expert come to.

    Args:
        matrices: of the expert, as for `Bound.absolute`.
        bounds: one a matrix; None where none is asked for.

    Returns:
        The matrices, which were only gone through where a bound is a statistic of them, and each
        bound in the unit of the weights.
    """
    asked = {bound for bound in bounds if bound is not None}
    held = [] if all(bound.kind == "abs" for bound in asked) else list(matrices)
    wanted = {bound: bound.absolute(held) for bound in asked}
    return held or matrices, [None if bound is None else wanted[bound] for bound in bounds]


def _widened(matrices: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The values in float64, so many at a time that they stay in the cache of a core."""
    for matrix in matrices:
        for part in matrix.split(CHUNK):
            yield torch.empty(len(part), dtype=torch.float64).copy_(part)
