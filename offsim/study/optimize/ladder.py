"""The forms that a place can have, what each loses there, and tables of bounds from choices."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import Place
from offsim.calibration.schema import Calibration
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import MATRICES, Bounds, Form, Rule
from offsim.study.optimize.knapsack import Choice, Floats

By = Literal["layer", "matrix", "expert"]
"""What has a form of its own: all experts of a layer, one matrix of all of them, or one expert."""


@dataclass(frozen=True)
class Ladder:
    """Places, rungs, and what they lose.

    Attributes:
        places: that have a form each.
        forms: [rungs] bounds of the policy's codec, and other codecs at their bounds; those that
            lose less in all places together come first.
        losses: [places, rungs] ESTIMATED, nats a token; those of one codec do not fall with its
            bound.
    """

    places: Sequence[Place]
    forms: Sequence[Form]
    losses: Floats

    def table(self, choice: Choice) -> Bounds:
        """The table of bounds of a choice: the commonest bound, and rules for other places."""
        own = [rung for rung, form in enumerate(self.forms) if form.codec is None]
        counts = Counter(rung for rung in choice.tolist() if rung in own)
        usual = counts.most_common(1)[0][0] if counts else own[0]
        alike: dict[tuple[int, int | None, str | None], list[int]] = defaultdict(list)
        for place, rung in zip(self.places, choice.tolist(), strict=True):
            if rung != usual:
                alike[rung, place.expert, place.matrix].append(place.layer)
        rules = [
            Rule(
                bound=self.forms[rung].bound,
                codec=self.forms[rung].codec,
                layers=tuple(layers),
                experts=None if expert is None else (expert,),
                matrices=tuple(name for name in MATRICES if name == matrix) or None,
            )
            for (rung, expert, matrix), layers in alike.items()
        ]
        default = self.forms[usual].bound
        assert default is not None
        return Bounds(default=default, rules=tuple(rules))


def ladder_of(
    sensitivity: Sensitivity, calibration: Calibration, codecs: Sequence[str], by: By = "layer"
) -> Ladder:
    """The forms in which codecs were calibrated, as far as it is known what they lose.

    Args:
        sensitivity: of the model.
        calibration: of the machine and the same model.
        codecs: by name; the first is the policy's, and takes a bound.
        by: what has a form of its own.

    Raises:
        InputError: losses are of bounds in sigma or such, whose size differs by expert; the two
            files are of models of another shape; the first codec takes no bound; a codec is not
            calibrated, or it is not known what it loses; or fewer than two forms are in both.
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
    first, *others = codecs
    if codec_named(first).promise != "bound":
        raise InputError(
            f"codec {first} takes no bound; name one that does first, such as cuszp, and {first} "
            "after it"
        )
    forms = [*_forms(sensitivity, calibration, first, None)]
    _check_enough(sensitivity, first, len(forms), 1 if others else 2)
    for codec in others:
        more = [*_forms(sensitivity, calibration, codec, codec)]
        _check_enough(sensitivity, codec, len(more), 1)
        forms += more
    places = list(_places(sensitivity, by))
    losses = np.array([[sensitivity.term(place, form).mean for form in forms] for place in places])
    for named in {form.codec for form in forms}:
        rungs = [rung for rung, form in enumerate(forms) if form.codec == named]
        losses[:, rungs] = np.maximum.accumulate(losses[:, rungs], axis=1)
    order = np.argsort(losses.sum(axis=0), kind="stable")
    return Ladder(places, [forms[rung] for rung in order], losses[:, order])


def _check_enough(sensitivity: Sensitivity, codec: str, found: int, least: int) -> None:
    if found < least:
        raise InputError(
            f"codec {codec} is calibrated at {found} bounds of which it is known what they lose "
            f"(up to {sensitivity.ladder[-1]:g}); calibrate {least} or more, "
            f"`offsim calibrate --codec {codec}:BOUND`"
        )


def _forms(
    sensitivity: Sensitivity, calibration: Calibration, codec: str, named: str | None
) -> Iterator[Form]:
    """A codec at all of its bounds that are calibrated and within reach, rising."""
    known = sorted({figures.bound for figures in calibration.codecs if figures.codec == codec})
    if codec_named(codec).promise != "bound":
        if not known:
            raise InputError(
                f"codec {codec} is not in the calibration; calibrate it, "
                f"`offsim calibrate --codec {codec}:0`"
            )
        yield Form(None, named)
        return
    for value in known:
        if 0 < value <= sensitivity.ladder[-1]:
            yield Form(Bound(value), named)


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
