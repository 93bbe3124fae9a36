"""What an answer depends on: figures of the machine one by one, and link and cache together."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from offsim.policy.bounds import Strict
from offsim.policy.policy import Policy
from offsim.study.case import Case
from offsim.study.optimize.knapsack import Choice
from offsim.study.optimize.ladder import Ladder
from offsim.study.optimize.search import Problem, uniform
from offsim.study.sweep.hardware import overridden

BY = 1.25
"""By which a figure is divided and multiplied."""
OCTAVES = range(-3, 4)
"""Bandwidths of the map, as powers of two of that of the link."""
MOST_SLOTS = 8
"""Columns of the map."""
COMPUTE = ("first", "dense", "head", "dispatch", "expert")
HANDOVER = ("submit_s", "start_s", "between_s", "wake_s")
Seconds = Callable[[Case], float]
"""The latency of a case, s."""


class Swing(Strict):
    """The latency with one figure of the machine less and more, SIMULATED.

    Attributes:
        figure: in words.
        less_s: with 1 / BY of it, s; of the slots, with one less.
        more_s: with BY times of it, s; of the slots, with one more.
    """

    figure: str
    less_s: float
    more_s: float


class Winners(Strict):
    """Which way to store the experts is fastest, SIMULATED.

    Attributes:
        bytes_per_s: bandwidths of the link, rising.
        slots: experts of a layer that have a slot, rising.
        names: [bandwidths][slots] of the fastest.
        gains: [bandwidths][slots] share by which it is faster than raw; 0 where raw is.
    """

    bytes_per_s: list[float]
    slots: list[int]
    names: list[list[str]]
    gains: list[list[float]]


class Around(Strict):
    """All about one answer.

    Attributes:
        now_s: latency of the answer where nothing is changed, SIMULATED, s.
        swings: of that.
        winners: of the ways that lose no more than the answer or the budget, MEASURED.
        prices: of each place the loss that the next looser form adds, ESTIMATED, by the time that
            it saves, SIMULATED, nats a token and s, from the fastest single form within the
            budget; without places where it saves none. The next looser form is that which loses
            least of those that lose more and are faster, everywhere.
    """

    now_s: float
    swings: list[Swing]
    winners: Winners
    prices: list[float]


def swings(case: Case, seconds: Seconds) -> list[Swing]:
    """The latency of an answer with one figure less and more, the widest swing first.

    Args:
        case: with the answer as its policy.
        seconds: latency of a case.
    """
    codec = case.policy.codec
    paths = {
        "compute": [f"compute.{name}" for name in COMPUTE],
        "decoding": [f"codecs.{codec}.decode_s"],
        "size of the blobs": [f"codecs.{codec}.blob_bytes"],
        "hand-overs": [f"handover.{name}" for name in HANDOVER],
    }

    def scaled(names: list[str], times: float) -> Case:
        hardware = {f"{name}.times": times for name in names}
        return replace(case, calibration=overridden(case.calibration, hardware))

    found = [
        Swing(
            figure=figure,
            less_s=seconds(scaled(names, 1 / BY)),
            more_s=seconds(scaled(names, BY)),
        )
        for figure, names in paths.items()
    ]
    width = case.bandwidth
    found.append(
        Swing(
            figure="bandwidth of the link",
            less_s=seconds(case.at_bandwidth(width / BY)),
            more_s=seconds(case.at_bandwidth(width * BY)),
        )
    )
    slots = case.policy.slots
    found.append(
        Swing(
            figure="slots of a layer, one less or more",
            less_s=seconds(case.with_policy(slots=max(1, slots - 1))),
            more_s=seconds(case.with_policy(slots=min(case.experts, slots + 1))),
        )
    )
    return sorted(found, key=lambda one: -abs(one.more_s - one.less_s))


def prices(case: Case, ladder: Ladder, budget: float, seconds: Seconds) -> list[float]:
    """What each place asks for time, as `Around.prices` has it.

    Args:
        case: its policy's own bounds do not matter.
        ladder: places and what they lose.
        budget: within which the fastest single form is taken, nats a token.
        seconds: latency of a case.
    """

    def latency(choice: Choice) -> float:
        return seconds(case.with_policy(bound=0.0, bounds=ladder.table(choice)))

    problem = Problem(ladder.losses, budget, latency)
    base = uniform(problem)
    if (base != base[0]).any():
        return []
    every = (np.full(len(base), rung) for rung in range(base[0] + 1, len(ladder.forms)))
    faster = (one for one in every if problem.seconds(one) < problem.seconds(base))
    looser = next(faster, base)[0]
    found = []
    for place in range(len(base)):
        changed = base.copy()
        changed[place] = looser
        saved = problem.seconds(base) - problem.seconds(changed)
        if saved > 0:
            found.append(
                float(ladder.losses[place, looser] - ladder.losses[place, base[0]]) / saved
            )
    return found


def winners(case: Case, ways: Mapping[str, Policy], seconds: Seconds) -> Winners:
    """The fastest way over bandwidths of the link and sizes of the cache.

    Args:
        case: whose link and cache are in the middle.
        ways: policies by name; they differ in codec and bounds. One of them is `raw`.
        seconds: latency of a case.
    """
    widths = [case.bandwidth * 2.0**octave for octave in OCTAVES]
    step = -(-case.experts // MOST_SLOTS)
    slots = sorted({*range(step, case.experts + 1, step), case.policy.slots} - {0})
    names, gains = [], []
    for width in widths:
        cells = []
        for size in slots:
            here = case.at_bandwidth(width)
            took = {
                name: seconds(
                    replace(here, policy=policy.model_copy(update={"slots": size, "extra": 0}))
                )
                for name, policy in ways.items()
            }
            best = min(took, key=lambda name: took[name])
            cells.append((best, 1 - took[best] / took["raw"]))
        names.append([name for name, _ in cells])
        gains.append([share for _, share in cells])
    return Winners(bytes_per_s=widths, slots=slots, names=names, gains=gains)
