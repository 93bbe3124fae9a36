"""Between which values a measurement is to be expected: a band around a prediction.

It is made of the calibration alone. Each draw takes one of the calibrations that might have been
(`Replicates`) and times the policy with it; then it takes one of the policies that the calibration
ran itself (`InnerRun`), as many of its rounds as a measurement has repeats, and lets each step take
as many times longer as that policy's steps took. How that works and what it assumes is in
docs/accuracy.md.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from offsim.calibration.replicates import replicate
from offsim.calibration.schema import Calibration
from offsim.calibration.uncertainty import InnerRun, Numbers
from offsim.policy.policy import Policy
from offsim.record.events import Label
from offsim.record.metrics import metrics_of_table
from offsim.record.table import StepTable
from offsim.record.typical import typical_rank
from offsim.simulate.simulation import outcome_of
from offsim.trace import Trace

LEVEL = 0.9
"""Share of measurements that a band is to cover."""
REPEATS = 7
"""Runs from which a measurement is put together where nothing is said, as a study does."""
DRAWS = 10
"""From each replicate."""
BANDED = ("ttft_s", "tpot_s", "itl_p50_s", "itl_p95_s", "tokens_per_s")
"""Metrics that have a band."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends of a metric, in its unit; `low` is not above `high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


Band = dict[str, Interval]
"""By the metric's name in `Metrics`; empty where a calibration does not say how sure it is."""


def band(
    trace: Trace,
    policy: Policy,
    calibration: Calibration,
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    *,
    level: float = LEVEL,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Band:
    """Where the metrics of a measurement lie.

    Args:
        trace: the router's decisions.
        policy: codec, bound, cache and prefetcher.
        calibration: with replicates and inner runs, or else there is no band.
        link_bytes_per_s: pace of the link; None for the machine's own.
        profile: a trace that the policy may learn from.
        level: share of measurements that lie inside, between 0 and 1.
        repeats: runs from which the measurement is put together (`offsim.record.typical`); 1 for a
            single run.
        seed: of the draws.

    Raises:
        InputError: as for `offsim.simulate.simulate`.
    """
    if calibration.replicates is None or not calibration.inner_runs:
        return {}
    some = max(policy.slots, min(policy.extra, 1))
    inner_runs = alike(calibration.inner_runs, some, calibration.model.experts)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in BANDED}
    for number in range(calibration.replicates.count):
        machine = replicate(calibration, number)
        outcome = outcome_of(trace, policy, machine, link_bytes_per_s, profile)
        table = outcome.table()
        for factors in _factors(inner_runs, table, repeats, rng):
            for name, value in _metrics(table, factors, outcome.label).items():
                drawn[name].append(value)
    wider = widening(len(inner_runs[0].decode), level)
    return {
        name: _between(np.array(values), level, wider)
        for name, values in drawn.items()
        if np.isfinite(values).all()  # a request of one token has no TPOT
    }


def alike(runs: list[InnerRun], slots: int, experts: int) -> list[InnerRun]:
    """The runs that kept experts as a policy does: none of them, some, or all.

    A run that loads everything, or nothing, is predicted more or less well than one that keeps
    some, for reasons of its own: its slots are warmer, or its loads never wait.

    Args:
        runs: of the calibration.
        slots: of the policy.
        experts: of a layer.

    Returns:
        All runs where none is known to be like that.
    """

    def kind(kept: int) -> int:
        return int(kept > 0) + int(kept >= experts)

    same = [run for run in runs if run.slots is not None and kind(run.slots) == kind(slots)]
    return same or runs


def widening(rounds: int, level: float) -> float:
    """By how much what was drawn from so few rounds is to be spread, a factor above 1.

    A new value of a normal distribution of which n are known lies within t sqrt(1 + 1/n) times
    their standard deviation of their mean, t being Student's with n - 1 degrees; what is drawn
    from the n has a standard deviation that is sqrt((n - 1) / n) of it, and z is expected of it.

    Args:
        rounds: n, at least 2.
        level: share that is to be inside, between 0 and 1.
    """
    end = 0.5 + level / 2
    students = float(stdtrit(rounds - 1, end)) * math.sqrt((rounds + 1) / (rounds - 1))
    return students / float(ndtri(end))


def _between(values: Floats, level: float, wider: float) -> Interval:
    """The middle share of values above 0, spread around their median: as factors, as errors are."""
    low, middle, high = np.quantile(values, (0.5 - level / 2, 0.5, 0.5 + level / 2)).tolist()
    if not low:
        return Interval(low, high)
    return Interval(middle * (low / middle) ** wider, middle * (high / middle) ** wider)


def _metrics(table: StepTable, factors: Floats, label: Label) -> dict[str, float]:
    """Of a run whose steps took so many times longer, one right after the other."""
    durations = np.rint((table.end - table.start) * factors).astype(np.int64)
    end = np.cumsum(durations)
    start = end - durations
    # Each arrives when its first step starts.
    arrival = start[np.searchsorted(table.start, table.arrival)]
    metrics = metrics_of_table(table._replace(start=start, end=end, arrival=arrival), label)
    return {name: getattr(metrics, name) for name in BANDED}


def _factors(
    runs: list[InnerRun], table: StepTable, repeats: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """By how much each step is longer than predicted, [steps], in so many measurements."""
    decode = table.decode
    for _ in range(DRAWS):
        run = runs[rng.integers(len(runs))]
        factors = np.empty(len(decode))
        for of_phase, own, other in (
            (~decode, run.prefill, run.decode),
            (decode, run.decode, run.prefill),
        ):
            if of_phase.any():
                factors[of_phase] = _of_phase(own if own[0] else other, of_phase, repeats, rng)
        yield factors


def _of_phase(
    rounds: list[Numbers],
    of_phase: npt.NDArray[np.bool_],
    repeats: int,
    rng: np.random.Generator,
) -> Floats:
    """The same of the steps of a phase: as often as needed, rounds are put one after the other.

    A round stays whole, because a machine is slow for several steps at a time.
    """
    known = np.array(rounds)
    steps, length = int(of_phase.sum()), known.shape[1]
    offset = int(rng.integers(length))
    blocks = -(-(offset + steps) // length)
    chosen = rng.integers(len(known), size=(repeats, blocks))
    rows: Floats = known[chosen].reshape(repeats, -1)[:, offset : offset + steps]
    rank = typical_rank(repeats)
    typical: Floats = np.partition(rows, rank, axis=0)[rank]
    return typical
