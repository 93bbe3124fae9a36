"""Running a model with an error in its experts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from transformers import PreTrainedModel

from offsim.accuracy.scopes import ALL, Places, ScopeText, Usage
from offsim.accuracy.sources import Source, source_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.model.experts import MATRICES, ExpertWeights, shape_of
from offsim.model.hook import Resident, handled
from offsim.policy.bounds import BoundText, Strict

VERSION = 1


class WeightError(Strict):
    """An error in weights: what kind, how large, where. Hashable, and JSON by pydantic.

    Attributes:
        source: `uniform`, `normal` or `codec:NAME`.
        bound: the size: half the width of `uniform`, the standard deviation of `normal`, the
            bound of a codec. A statistic (`mean-abs`, `sigma`, `rel`) is that of the expert. None
            is no error at all, but for a codec that takes no bound, which needs None.
        scope: which matrices.
        seed: of noise, >= 0; codecs have none.

    Raises:
        InputError: no such source, or a bound for a codec that takes none.
    """

    format: Literal["offsim-weight-error"] = "offsim-weight-error"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    source: str
    bound: BoundText | None
    scope: ScopeText = ALL
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _checked(self) -> "WeightError":
        takes_bound = self.made_by().takes_bound
        if self.bound is not None and not takes_bound:
            raise InputError(f"{self.source} takes no bound; {self.bound} cannot be asked of it")
        return self

    def made_by(self) -> Source:
        """What makes the error.

        Raises:
            InputError: no source has this name.
        """
        return source_named(self.source)

    def __str__(self) -> str:
        return f"{self.source}{self.size} in {self.scope}, seed {self.seed}"

    @property
    def size(self) -> str:
        """The bound after a blank, 0 where there is no error; empty where none is taken."""
        if self.bound is None:
            return " 0" if self.made_by().takes_bound else ""
        return f" {self.bound}"


class Perturbed(Resident):
    """A handler that runs the experts of a model with errors; what has none is shared with it.

    Of several errors in one matrix the last one holds alone, so that `all` followed by
    `top2:all` is an error for the cold experts and another for the hot ones.

    Args:
        model: not changed. The errors are those of its weights as they are now.
        errors: none for the model as it is, run through the same code.
        usage: activations of each expert [layers, experts] int64, for scopes that ask for it.

    Attributes:
        largest: for each matrix, the largest difference from the model's own weights,
            [layers, experts, 3] float64, in the unit of the weights.

    Raises:
        InputError: a scope that is not of this model, or lacks the usage.
    """

    def __init__(
        self, model: PreTrainedModel, *errors: WeightError, usage: Usage | None = None
    ) -> None:
        super().__init__(model)
        shape = shape_of(model)
        places = Places(shape.layers, shape.experts, usage)
        self.largest = np.zeros((shape.layers, shape.experts, len(MATRICES)))
        owner = np.full(self.largest.shape, -1)
        for number, error in enumerate(errors):
            owner[error.scope.mask(places)] = number
        makers = [(error, error.made_by()) for error in errors]
        for layer in range(shape.layers):
            for expert in np.flatnonzero((owner[layer] >= 0).any(1)).tolist():
                before = self.experts[layer][expert]
                own = before.matrices
                makers_here = [makers[n] if n >= 0 else None for n in owner[layer, expert]]
                changed = _changed(own, makers_here, (layer, expert))
                self.experts[layer][expert] = _expert(before, own, changed)
                self.largest[layer, expert] = [
                    float((after.float() - weights.float()).abs().max())
                    for after, weights in zip(changed, own, strict=True)
                ]


def _changed(
    own: tuple[torch.Tensor, ...],
    makers: Sequence[tuple[WeightError, Source] | None],
    place: tuple[int, int],
) -> list[torch.Tensor]:
    """The three matrices of an expert with their errors; one that has none is the same object."""
    changed = list(own)
    sizes: dict[Bound, float] = {}
    for matrix, maker in enumerate(makers):
        if maker is None:
            continue
        error, source = maker
        size = 0.0
        if source.takes_bound:
            if error.bound is None:
                continue
            if error.bound not in sizes:
                sizes[error.bound] = error.bound.absolute(own)
            size = sizes[error.bound]
            if not size:  # all weights are equal: only exact ones keep such a bound
                continue
        changed[matrix] = source.changed(own[matrix], size, error.seed, (*place, matrix))
    return changed


def _expert(
    before: ExpertWeights, own: tuple[torch.Tensor, ...], changed: list[torch.Tensor]
) -> ExpertWeights:
    """An expert with the changed matrices; what did not change stays where it is."""
    gate_up = before.gate_up
    if changed[0] is not own[0] or changed[1] is not own[1]:
        gate_up = torch.cat(changed[:2])
    return ExpertWeights(gate_up, changed[2])


@contextmanager
def injected(
    model: PreTrainedModel, *errors: WeightError, usage: Usage | None = None
) -> Iterator[Perturbed]:
    """Within the block the model runs with these errors; as for `Perturbed`.

    Blocks may nest: the inner one holds, with errors of the model's own weights. To use one
    injection several times, make a `Perturbed` and run under `offsim.model.hook.handled`.
    """
    handler = Perturbed(model, *errors, usage=usage)
    with handled(model, handler):
        yield handler
