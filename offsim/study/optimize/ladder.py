"""The bounds that a place can have, what each loses there, and tables of bounds from choices."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from offsim.accuracy.sensitivity import Place, Sensitivity
from offsim.calibration.schema import Calibration
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import MATRICES, Bounds, Rule
from offsim.study.optimize.knapsack import Choice, Floats

By = Literal["layer", "matrix", "expert"]
"""What has a bound of its own: all experts of a layer, one matrix of all of them, or one expert."""


@dataclass(frozen=True)
class Ladder:
    """Places, rungs, and what they lose.

    Attributes:
        places: that have a bound each.
        bounds: [rungs] absolute bounds, rising.
        losses: [places, rungs] ESTIMATED, nats a token.
    """

    places: Sequence[Place]
    bounds: Sequence[Bound]
    losses: Floats

    def table(self, choice: Choice) -> Bounds:
        """The table of bounds of a choice: the commonest bound, and rules for other places."""
        usual = Counter(choice.tolist()).most_common(1)[0][0]
        alike: dict[tuple[int, int | None, str | None], list[int]] = defaultdict(list)
        for place, rung in zip(self.places, choice.tolist(), strict=True):
            if rung != usual:
                alike[rung, place.expert, place.matrix].append(place.layer)
        rules = [
            Rule(
                bound=self.bounds[rung],
                layers=tuple(layers),
                experts=None if expert is None else (expert,),
                matrices=tuple(name for name in MATRICES if name == matrix) or None,
            )
            for (rung, expert, matrix), layers in alike.items()
        ]
        return Bounds(default=self.bounds[usual], rules=tuple(rules))


def ladder_of(
    sensitivity: Sensitivity, calibration: Calibration, codec: str, by: By = "layer"
) -> Ladder:
    """The bounds at which a codec was calibrated, as far as it is known what they lose.

    Args:
        sensitivity: of the model.
        calibration: of the machine and the same model.
        codec: by name.
        by: what has a bound of its own.

    Raises:
        InputError: losses are of bounds in sigma or such, whose size differs by expert; the two
            files are of models of another shape; or fewer than two bounds are in both.
    """
    ours, theirs = calibration.model, sensitivity.model
    if (ours.layers, ours.experts) != (theirs.layers, theirs.experts):
        raise InputError(
            f"the sensitivity is of a model of {theirs.layers} layers of {theirs.experts} experts, "
            f"and the calibration of {ours.layers} of {ours.experts}; take two of one model"
        )
    if sensitivity.kind != "abs":
        raise InputError(
            f"the sensitivity has bounds in {sensitivity.kind}, which are other numbers for each "
            "expert; measure it with absolute ones, `offsim sensitivity --bounds`"
        )
    known = sorted({figures.bound for figures in calibration.codecs if figures.codec == codec})
    bounds = [Bound(value) for value in known if 0 < value <= sensitivity.ladder[-1]]
    if len(bounds) < 2:
        raise InputError(
            f"codec {codec} is calibrated at {len(bounds)} bounds of which it is known what they "
            f"lose (up to {sensitivity.ladder[-1]:g}); calibrate two or more, "
            f"`offsim calibrate --codec {codec}:BOUND`"
        )
    places = list(_places(sensitivity, by))
    losses = np.array(
        [[sensitivity.term(place, bound).mean for bound in bounds] for place in places]
    )
    return Ladder(places, bounds, np.maximum.accumulate(losses, axis=1))


def _places(sensitivity: Sensitivity, by: By) -> list[Place]:
    layers = range(sensitivity.model.layers)
    match by:
        case "layer":
            return [Place(layer=layer) for layer in layers]
        case "matrix":
            return [Place(layer=n, matrix=name) for n, name in product(layers, MATRICES)]
        case "expert":
            experts = range(sensitivity.model.experts)
            return [Place(layer=layer, expert=one) for layer, one in product(layers, experts)]
