import numpy as np
import pytest

from offsim.calibration.replicates import replicates_of
from offsim.calibration.schema import Calibration
from offsim.calibration.uncertainty import InnerRun
from offsim.policy.policy import Policy
from offsim.simulate import predict
from offsim.simulate.band import BANDED, Interval, alike, band, widening
from offsim.trace import PREFILL, Trace
from offsim.trace.cut import cut, joined
from tests.builders import TOY, calibration

POLICY = Policy(slots=2)
EVEN = InnerRun(run="raw", prefill=[(1.0,)] * 4, decode=[(1.0, 1.0)] * 4)


def uncertain(*runs: InnerRun, times: tuple[float, ...] = (1.0, 1.0)) -> Calibration:
    """Compute that might take so many times longer."""
    made = calibration()
    others = [calibration(dense_s=factor, expert_s=factor) for factor in times]
    known = replicates_of(made, others)
    return made.model_copy(update={"replicates": known, "inner_runs": list(runs)})


def test_without_uncertainty_there_is_no_band() -> None:
    assert band(TOY, POLICY, calibration()) == {}
    assert band(TOY, POLICY, uncertain()) == {}


def test_a_constant_machine_has_a_band_of_no_width_at_the_prediction() -> None:
    trace = joined([TOY, cut(TOY, tokens=3)])
    metrics = predict(trace, POLICY, calibration(), 500.0)
    found = band(trace, POLICY, uncertain(EVEN), 500.0)
    assert found == {name: Interval(*[getattr(metrics, name)] * 2) for name in BANDED}
    assert metrics.tpot_s in found["tpot_s"]


def test_other_calibrations_widen_it() -> None:
    times = tuple(1.25 ** (n / 20 - 1) for n in range(41))
    found = band(TOY, Policy(slots=4), uncertain(EVEN, times=times), 1e9)
    alone = predict(TOY, Policy(slots=4), calibration(), 1e9)
    end = 1.25 ** (0.9 * widening(4, 0.9))
    for name in ("ttft_s", "tpot_s", "itl_p50_s"):
        value = getattr(alone, name)
        assert found[name].low == pytest.approx(value / end, rel=1e-4)
        assert found[name].high == pytest.approx(value * end, rel=1e-4)
    assert found["tokens_per_s"].low == pytest.approx(alone.tokens_per_s / end, rel=1e-4)


def test_runs_that_kept_as_much_are_taken() -> None:
    kept = {n: EVEN.model_copy(update={"slots": n}) for n in (0, 2, 4)}
    runs = list(kept.values())
    for slots, like in ((0, 0), (1, 2), (3, 2), (4, 4), (9, 4)):
        assert alike(runs, slots, 4) == [kept[like]]
    assert alike(runs[:2], 4, 4) == runs[:2], "there is none that kept all"
    assert alike([EVEN], 2, 4) == [EVEN], "a file of before slots were noted"


def test_a_band_is_made_of_the_runs_that_are_alike() -> None:
    slow = InnerRun(run="raw", prefill=[(2.0,)] * 4, decode=[(2.0,)] * 4, slots=0)
    same = EVEN.model_copy(update={"slots": 2})
    found = band(TOY, POLICY, uncertain(slow, same), 500.0)
    assert found == band(TOY, POLICY, uncertain(same), 500.0)
    assert found != band(TOY, POLICY, uncertain(slow, EVEN), 500.0)


def test_few_rounds_say_little() -> None:
    """By tables of Student's t: 6.314 for one degree, 1.895 for seven; z is 1.645."""
    assert widening(2, 0.9) == pytest.approx(3**0.5 * 6.314 / 1.645, rel=1e-3)
    assert widening(8, 0.9) == pytest.approx((9 / 7) ** 0.5 * 1.895 / 1.645, rel=1e-3)
    assert widening(10**6, 0.5) == pytest.approx(1.0, rel=1e-3)


def test_each_phase_is_as_much_longer_as_in_the_runs() -> None:
    run = InnerRun(run="raw", prefill=[(3.0, 3.0)] * 4, decode=[(2.0,)] * 4)
    alone = predict(TOY, POLICY, calibration())
    found = band(TOY, POLICY, uncertain(run))
    assert found["ttft_s"].low == found["ttft_s"].high == pytest.approx(3 * alone.ttft_s)
    assert found["itl_p95_s"].high == pytest.approx(2 * alone.itl_p95_s)
    only = InnerRun(run="raw", prefill=[()] * 4, decode=[(2.0,)] * 4)
    assert band(TOY, POLICY, uncertain(only))["ttft_s"].low == pytest.approx(2 * alone.ttft_s)
    arrays = TOY.arrays() | {"phase": np.full(TOY.tokens, PREFILL, np.uint8)}
    prompt = band(Trace(TOY.info, **arrays), POLICY, uncertain(run))
    assert sorted(prompt) == ["tokens_per_s", "ttft_s"], "one token has no TPOT"


def test_repeats_take_slow_spells_away() -> None:
    """A quarter of the rounds are slow; the first quartile of seven hardly ever is."""
    slow = InnerRun(run="raw", prefill=[(1.0,)] * 4, decode=[(1.0,)] * 3 + [(5.0,)])
    alone = predict(TOY, POLICY, calibration())
    made = uncertain(slow, times=(1.0,) * 20)
    single = band(TOY, POLICY, made, repeats=1)["tpot_s"]
    several = band(TOY, POLICY, made, repeats=7)["tpot_s"]
    assert several.low == several.high == pytest.approx(alone.tpot_s)
    assert single.high > 1.9 * alone.tpot_s


def test_a_round_stays_whole() -> None:
    """Two steps of a round are slow together: the sum varies more than that of single steps."""
    whole = InnerRun(run="raw", prefill=[(1.0,)] * 2, decode=[(1.0,) * 4, (2.0,) * 4])
    mixed = InnerRun(run="raw", prefill=[(1.0,)] * 2, decode=[(1.0, 2.0) * 2, (2.0, 1.0) * 2])
    ends = [
        band(TOY, POLICY, uncertain(run), repeats=1, level=0.5)["tpot_s"] for run in (whole, mixed)
    ]
    assert ends[0].high - ends[0].low > 1.5 * (ends[1].high - ends[1].low)


def test_the_same_seed_draws_the_same_and_a_higher_level_is_wider() -> None:
    run = InnerRun(run="raw", prefill=[(1.0,), (1.5,)], decode=[(1.0, 1.1, 1.2), (1.3, 1.4, 1.5)])
    made = uncertain(run, times=(0.9, 1.0, 1.1))
    first, again = (band(TOY, POLICY, made, seed=3) for _ in range(2))
    assert first == again != band(TOY, POLICY, made, seed=4)
    wide = band(TOY, POLICY, made, seed=3, level=0.99)
    assert all(wide[n].low <= first[n].low < first[n].high <= wide[n].high for n in BANDED)
