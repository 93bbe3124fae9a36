import pytest

from offsim.study.optimize.latency import mean_of
from tests.study.optimize.proofs import both


def test_the_mean_of_latencies() -> None:
    found = mean_of([both(0.004, [0.003, 0.005]), both(0.008, [0.009, 0.007])])
    assert found.measured == pytest.approx(0.006)
    assert found.simulated == pytest.approx(0.00612)
    assert found.repeats == pytest.approx([0.006, 0.006])
    assert (found.low, found.high) == pytest.approx((0.9 * 0.00612, 1.1 * 0.00612))


def test_without_one_of_the_bands_there_is_none() -> None:
    bare = both(0.004).model_copy(update={"low": None})
    assert mean_of([both(0.004), bare]).low is None
