"""A made-up machine whose rounds differ as drawn: what its bands cover."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from scipy.stats import binomtest

from offsim.calibration.fit import undisturbed_rounds
from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.record import RunRecord, metrics_of
from offsim.record.times import StepTimes
from offsim.record.typical import moved, typical
from offsim.runtime.run import Run
from offsim.simulate import simulate
from offsim.simulate.band import Band, band
from offsim.study.rounds import Inner, Rounds
from offsim.study.uncertain import with_uncertainty
from offsim.trace.cut import joined
from tests.builders import TOY, calibration
from tests.simulate.stamps import stamps

TRACE = joined([TOY] * 3)
INNER = (Policy(slots=0), Policy(slots=3))
ROUNDS, REPEATS, STUDIES = 8, 7, 40


def machine(factor: float) -> Calibration:
    """Everything takes so many times longer than usual."""
    made = calibration(dense_s=factor, expert_s=factor)
    link = made.link.model_copy(update={"bytes_per_s": 1000 / factor})
    return made.model_copy(update={"link": link})


@cache
def usual(policy: Policy) -> tuple[RunRecord, list[StepTimes]]:
    """A run with nothing unusual."""
    return simulate(TRACE, policy, machine(1.0)), stamps(TRACE, policy)


class Made:
    """A machine that is in another state in each round, and where each step is noisy besides.

    Args:
        seed: of everything that is drawn.
        between: standard deviation of the logarithm of how long all of a round takes.
        within: of that of a single step.
    """

    def __init__(self, seed: int, between: float, within: float) -> None:
        self.rng, self.between, self.within = np.random.default_rng(seed), between, within
        self.states = [self.state() for _ in range(ROUNDS)]

    def state(self) -> float:
        return float(np.exp(self.between * self.rng.standard_normal()))

    def run(self, policy: Policy, state: float) -> Run:
        """A real one."""
        (record, times), steps, now = usual(policy), [], 0.0
        for step in record.steps:
            noisy = (step.end - step.start) * state
            noisy *= float(np.exp(self.within * self.rng.standard_normal()))
            steps.append(moved(step, now))
            steps[-1].end = now = now + noisy
        return Run(RunRecord("MEASURED", steps), times=times)

    def calibration(self, numbers: Sequence[int]) -> Calibration:
        """As a calibration takes the faster half of its rounds."""
        kept = undisturbed_rounds([self.states[number] for number in numbers], float)
        return machine(float(np.mean(kept)))

    def uncertain(self, count: int = 15) -> Calibration:
        """With what its own runs say."""
        inners = [
            Inner(policy, None, Rounds(self.run(policy, state) for state in self.states))
            for policy in INNER
        ]
        whole = self.calibration(range(ROUNDS))
        return with_uncertainty(whole, self.calibration, ROUNDS, inners, count)

    def measured(self, policy: Policy, repeats: int) -> dict[str, float]:
        """From runs at other times than the rounds."""
        runs = [self.run(policy, self.state()).record for _ in range(repeats)]
        metrics = metrics_of(typical(runs))
        return {name: getattr(metrics, name) for name in ("ttft_s", "tpot_s", "itl_p95_s")}


@pytest.mark.parametrize("repeats", [1, REPEATS])
def test_a_band_covers_about_nine_in_ten(repeats: int) -> None:
    policy = Policy(slots=2)
    inside = dict.fromkeys(("ttft_s", "tpot_s", "itl_p95_s"), 0)
    for seed in range(STUDIES):
        made = Made(seed, between=0.05, within=0.03)
        found = band(TRACE, policy, made.uncertain(), repeats=repeats)
        for name, value in made.measured(policy, repeats).items():
            inside[name] += value in found[name]
    for name, count in inside.items():
        assert binomtest(count, STUDIES, 0.9).pvalue > 0.001, (name, count)


def test_a_constant_machine_is_known() -> None:
    policy = Policy(slots=2)
    made = Made(0, between=0.0, within=0.0)
    known = made.uncertain()
    assert known.replicates is not None
    assert known.replicates.values == {}
    found: Band = band(TRACE, policy, known)
    for name, value in made.measured(policy, REPEATS).items():
        assert (found[name].low, found[name].high) == pytest.approx((value, value))


def test_what_was_run_is_predicted_from_the_other_rounds() -> None:
    made = Made(1, between=0.5, within=0.0)
    known = made.uncertain()
    assert [run.run for run in known.inner_runs] == [
        "raw, lru 0, plain link", "raw, lru 3, plain link"
    ]  # fmt: skip
    for left, state in enumerate(made.states):
        others = [number for number in range(ROUNDS) if number != left]
        expected = state / made.calibration(others).compute.dense[0].seconds.value
        for run in known.inner_runs:
            assert (len(run.prefill[left]), len(run.decode[left])) == (3, 12)
            assert run.decode[left] == pytest.approx([expected] * 12, rel=1e-3)


@pytest.mark.parametrize("rounds", [1, 2])
def test_few_rounds_do_not_say_how_rounds_differ(rounds: int) -> None:
    made = Made(0, 0.1, 0.1)
    few = made.calibration(range(rounds))
    assert with_uncertainty(few, made.calibration, rounds, []) == few
