import math

import numpy as np
import pytest

from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.simulate import serve
from offsim.simulate.arrivals import poisson
from offsim.simulate.batching import Batching
from offsim.study.capacity import CLOSE, Target, _drawn, capacity
from offsim.study.case import Case
from tests.builders import calibration, codec_figures
from tests.simulate.traffic import requests_of

SHAPE = {"layers": 2, "experts": 6}
CASE = Case(
    requests_of([(3, 2), (4, 3), (1, 4)]),
    Policy(slots=6),
    calibration(codec_figures(**SHAPE), **SHAPE),
    1000.0,
)
TOGETHER = Batching(4)


def test_the_rate_is_between_one_that_holds_and_one_that_does_not() -> None:
    found = capacity(CASE, TOGETHER, Target(ttft_s=40.0), requests=20, draws=2)
    assert 0 < found.per_s < found.too_high <= CLOSE * found.per_s
    by_rate = {load.per_s: load for load in found.loads}
    assert by_rate[found.per_s].ttft_p95_s <= 40.0 < by_rate[found.too_high].ttft_p95_s
    assert list(by_rate) == sorted(by_rate)
    assert found.label == "SIMULATED"


def test_a_load_is_the_mean_of_what_serving_says() -> None:
    found = capacity(CASE, TOGETHER, Target(tpot_s=9.0), requests=8, draws=2, seed=5)
    load = found.loads[len(found.loads) // 2]
    seen = [
        serve(
            _drawn(CASE.trace, 8, seed),
            CASE.policy,
            CASE.calibration,
            poisson(8, load.per_s, seed).tolist(),
            TOGETHER,
            1000.0,
        ).metrics()
        for seed in (5, 6)
    ]
    assert load.tpot_s == pytest.approx(np.mean([metrics.tpot_s for metrics in seen]))
    assert load.ttft_p95_s == pytest.approx(np.mean([metrics.ttft_p95_s for metrics in seen]))


def test_one_at_a_time_is_a_queue_that_is_full_at_its_rate_of_service() -> None:
    """Of 400 requests of one length; near that rate they wait long."""
    alone = Case(requests_of([(2, 3)]), CASE.policy, CASE.calibration, 1000.0)
    found = capacity(alone, Batching(1), Target(ttft_s=600.0), requests=400, draws=1)
    served = max(load.tokens_per_s for load in found.loads) / 4  # requests/s, where all wait
    assert served == pytest.approx(1 / 30, rel=0.01)
    assert 0.85 < found.per_s / served < 1.15


def test_a_looser_target_is_kept_for_longer() -> None:
    rates = [
        capacity(CASE, TOGETHER, Target(ttft_s=ttft), requests=12, draws=1).per_s
        for ttft in (20.0, 40.0, 80.0)
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_what_is_never_kept_and_what_always_is() -> None:
    never = capacity(CASE, TOGETHER, Target(ttft_s=0.1), requests=5, draws=1)
    assert (never.per_s, math.isinf(never.too_high)) == (0, False)
    with pytest.raises(InputError, match="does not keep the target for any rate"):
        never.machines(1.0)
    always = capacity(CASE, Batching(1), Target(tpot_s=1e4), requests=5, draws=1)
    assert always.too_high == math.inf


def test_machines_are_whole() -> None:
    found = capacity(CASE, TOGETHER, Target(ttft_s=40.0), requests=10, draws=1)
    assert found.machines(2.5 * found.per_s) == 3
    assert found.machines(found.per_s) == 1


@pytest.mark.parametrize("given", [(None, None), (0.0, None), (1.0, -1.0), (math.nan, 1.0)])
def test_a_target_is_above_zero(given: tuple[float | None, float | None]) -> None:
    with pytest.raises(InputError, match="give --ttft, --tpot"):
        Target(*given)
