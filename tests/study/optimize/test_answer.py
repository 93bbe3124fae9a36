import pytest

from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds, Rule
from offsim.study.optimize.answer import optimize
from offsim.study.optimize.budget import Budget

from .cases import losses, machine


def test_the_layers_that_lose_least_have_the_loosest_bounds_by_hand() -> None:
    # All at 0.5 lose 0.25 * 21 = 5.25, and so do 1 (1), 0.5 (1) and 0.25 (1) with less: 3.
    found = optimize(machine(), losses(), Budget("kl", 3.0))
    assert found.bounds == Bounds(
        default=Bound(1.0),
        rules=(
            Rule(bound=Bound(0.5), layers=(1,)),
            Rule(bound=Bound(0.25), layers=(2,)),
        ),
    )
    # A token computes for 6 s and waits for 200, 400 and 600 bytes, at 1000 bytes/s.
    assert found.found.latency_s == pytest.approx(6 + 1.2)
    assert found.best.metrics.tpot_s == found.found.latency_s
    assert found.found.exact
    assert found.best.loss is not None
    assert found.best.loss.kl.mean == pytest.approx(3.0)
    raw, single, zones = found.others
    assert raw.metrics.tpot_s == pytest.approx(6 + 3.0)
    assert (single.name, single.metrics.tpot_s) == ("one bound, 0.25", pytest.approx(6 + 1.8))
    assert zones.bounds == found.bounds  # three layers are three zones
    assert found.rungs == {0.125: 0, 0.25: 1, 0.5: 1, 1.0: 1}


def test_the_first_token_can_be_what_is_least() -> None:
    found = optimize(machine(), losses(), Budget("kl", 3.0), goal="ttft")
    assert found.found.latency_s == pytest.approx(found.best.metrics.ttft_s)


def test_finer_places_are_never_slower() -> None:
    whole = optimize(machine(), losses(), Budget("kl", 2.0))
    finer = optimize(machine(), losses(), Budget("kl", 2.0), by="expert")
    assert finer.found.latency_s <= whole.found.latency_s
    assert finer.found.loss <= 2.0 * (1 + 1e-6)


def test_zones_hold_a_third_of_the_layers_each() -> None:
    found = optimize(machine(), losses(), Budget("kl", 3.0), by="expert")
    assert found.zones.bounds is not None
    used, at = found.zones.bounds.table(3, 4)
    assert len(used) == 3
    assert all(len(set(layer.ravel().tolist())) == 1 for layer in at)
    assert found.found.latency_s <= found.zones.metrics.tpot_s
