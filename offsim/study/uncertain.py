"""How sure a calibration is, from its own rounds: the bootstrap, and its runs predicted."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from offsim.calibration.replicates import replicates_of
from offsim.calibration.schema import Calibration
from offsim.calibration.uncertainty import InnerRun
from offsim.runtime.run import Run
from offsim.simulate.again import again
from offsim.study.rounds import Inner
from offsim.trace import DECODE, PREFILL

REPLICATES = 40
"""Calibrations that are kept of those that might have been."""
FEWEST_ROUNDS = 3
"""Fewer say so little of how rounds differ that a band would be worth nothing."""
SEED = 1
"""Of the rounds that are drawn."""
Made = Callable[[Sequence[int]], Calibration]
"""Gives the calibration from these rounds alone, each as often as it is named."""


def with_uncertainty(
    calibration: Calibration,
    made: Made,
    rounds: int,
    inners: Iterable[Inner],
    count: int = REPLICATES,
) -> Calibration:
    """A calibration with what a band on each prediction needs; the same if rounds are too few.

    Args:
        calibration: from all rounds.
        made: gives others.
        rounds: how many there are.
        inners: what was run in each round.
        count: of replicates.
    """
    if rounds < FEWEST_ROUNDS:
        return calibration
    draws = np.random.default_rng(SEED).integers(rounds, size=(count, rounds))
    others = [made(numbers) for numbers in draws.tolist()]
    # Nothing is predicted from the round in which it was run.
    without = [made([n for n in range(rounds) if n != left]) for left in range(rounds)]
    return calibration.model_copy(
        update={
            "replicates": replicates_of(calibration, others),
            "inner_runs": [inner_run(inner, without) for inner in inners],
        }
    )


def inner_run(inner: Inner, calibrations: Sequence[Calibration]) -> InnerRun:
    """Measured over predicted duration of each step, in the rounds' common steps.

    Args:
        inner: a policy and its runs, one a round.
        calibrations: that predict them, one a round.
    """
    factors = [
        _factors(run, inner, calibration)
        for run, calibration in zip(inner.runs, calibrations, strict=True)
    ]
    rows: dict[int, list[tuple[float, ...]]] = {}
    for phase in (PREFILL, DECODE):
        # The requests of a trace are not all as long, and other rounds draw others.
        shortest = min(len(by_phase[phase]) for by_phase in factors)
        rows[phase] = [tuple(by_phase[phase][:shortest]) for by_phase in factors]
    return InnerRun(
        run=str(inner),
        prefill=rows[PREFILL],
        decode=rows[DECODE],
        storage=inner.policy.storage,
        slots=inner.policy.slots,
    )


def _factors(run: Run, inner: Inner, calibration: Calibration) -> dict[int, list[float]]:
    """Of the steps of each phase."""
    link = inner.link_bytes_per_s
    predicted = again(run.record, run.times, inner.policy, calibration, link)
    factors: dict[int, list[float]] = {PREFILL: [], DECODE: []}
    for step, seconds in zip(run.record.steps, predicted.tolist(), strict=True):
        factors[step.phase].append(float(f"{(step.end - step.start) / seconds:.4g}"))
    return factors
