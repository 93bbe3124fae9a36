"""What `offsim optimize` answers: a table of bounds, what it takes and what it loses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from offsim.accuracy.sensitivity import Predicted, Sensitivity
from offsim.policy.bounds import Bounds
from offsim.record import Metrics
from offsim.study.case import Case
from offsim.study.optimize.budget import Budget
from offsim.study.optimize.knapsack import Choice
from offsim.study.optimize.ladder import By, Ladder, ladder_of
from offsim.study.optimize.search import Found, Problem, fastest, uniform

Goal = Literal["tpot", "ttft"]
"""The latency that is to be least."""
Progress = Callable[[str, float], None]
ZONES = 3
"""Into which layers are divided for a choice that a person could have made: first, middle, last."""


@dataclass(frozen=True)
class Row:
    """One way to store the experts.

    Attributes:
        name: for people.
        bounds: of every matrix; None where nothing is lost.
        metrics: SIMULATED.
        loss: ESTIMATED, nats a token; None where nothing is lost.
    """

    name: str
    bounds: Bounds | None
    metrics: Metrics
    loss: Predicted | None


@dataclass(frozen=True)
class Optimized:
    """The fastest table of bounds, and codecs, within a budget.

    Attributes:
        budget: that was asked for.
        nats: the divergence that goes with it, nats a token.
        goal: what is least.
        by: what has a form of its own.
        found: the search.
        bounds: the answer.
        best: the same, with what it takes and loses.
        zones: the fastest with one form in each third of the layers.
        codecs: that were chosen among, the policy's first.
        others: what it is held against: no compression, where that is calibrated, the fastest
            single form within the budget, and the zones.
        rungs: how many places have each form, in words.
    """

    budget: Budget
    nats: float
    goal: Goal
    by: By
    found: Found
    bounds: Bounds
    best: Row
    zones: Row
    others: tuple[Row, ...]
    codecs: tuple[str, ...]
    rungs: dict[str, int]


def optimize(
    case: Case,
    sensitivity: Sensitivity,
    budget: Budget,
    also: Sequence[str] = (),
    by: By = "layer",
    goal: Goal = "tpot",
    progress: Progress = lambda *_: None,
) -> Optimized:
    """Choose the bounds of the case's codec, or other codecs and their bounds.

    Args:
        case: trace, policy, machine and link; the policy's own bound does not matter.
        sensitivity: of the model, with absolute bounds.
        budget: what may be lost.
        also: other codecs that a place may have.
        by: what has a form of its own.
        goal: what is to be least.
        progress: for a display.

    Raises:
        InputError: as for `ladder_of`, `Budget.nats` and `fastest`.
    """
    codecs = (case.policy.codec, *also)
    ladder = ladder_of(sensitivity, case.calibration, codecs, by)
    nats = budget.nats(sensitivity)

    predictor = case.predictor()

    def metrics_of(choice: Choice) -> Metrics:
        return predictor.predict(ladder.table(choice))

    def latency(choice: Choice) -> float:
        metrics = metrics_of(choice)
        return metrics.tpot_s if goal == "tpot" else metrics.ttft_s

    problem = Problem(ladder.losses, nats, latency)
    found = fastest(problem, progress)

    def row(name: str, choice: Choice) -> Row:
        table = ladder.table(choice)
        return Row(name, table, metrics_of(choice), sensitivity.predict(table))

    single = uniform(problem)
    zones = row("three zones of layers", _zoned(problem, ladder))
    alone = ladder.forms[single[0]]
    others = [row(f"one bound, {alone}" if alone.codec is None else str(alone), single), zones]
    if any(one.codec == "raw" for one in case.calibration.codecs):
        raw = replace(case, policy=case.policy.uncompressed()).predict()
        others.insert(0, Row("raw", None, raw, None))
    counts = np.bincount(found.choice, minlength=len(ladder.forms)).tolist()
    return Optimized(
        budget=budget,
        nats=nats,
        goal=goal,
        by=by,
        found=found,
        bounds=ladder.table(found.choice),
        best=row(f"optimised by {by}", found.choice),
        zones=zones,
        others=tuple(others),
        codecs=codecs,
        rungs={str(form): count for form, count in zip(ladder.forms, counts, strict=True)},
    )


def _zoned(problem: Problem, ladder: Ladder) -> Choice:
    """The fastest choice whose first, middle and last layers have one bound each."""
    layer = np.array([place.layer for place in ladder.places])
    zone = ZONES * layer // (layer.max() + 1)
    named, zone_of = np.unique(zone, return_inverse=True)  # two layers have two zones
    losses = np.array([problem.losses[zone == one].sum(0) for one in named])
    grouped = Problem(losses, problem.budget, lambda choice: problem.seconds(choice[zone_of]))
    choice: Choice = fastest(grouped).choice[zone_of]
    return choice
