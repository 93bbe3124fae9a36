from dataclasses import replace

import pytest

from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds, Rule
from offsim.study.optimize.answer import optimize
from offsim.study.optimize.budget import Budget
from tests.builders import codec_figures

from .cases import losses, machine, of_codec


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
    assert found.rungs == {"0.125": 0, "0.25": 1, "0.5": 1, "1": 1}


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


def test_a_layer_has_another_codec_where_that_is_faster_for_its_loss_by_hand() -> None:
    # rtn-int4: 300 bytes for 0.1, 0.1 and 9; a loose bound everywhere would be 1, 4 and 16.
    case = machine()
    other = codec_figures("rtn-int4", blob_bytes=300)
    made = case.calibration.model_copy(update={"codecs": [*case.calibration.codecs, other]})
    known = losses().model_copy(update={"unbounded": (of_codec("rtn-int4", 0.1, 0.1, 9.0),)})
    found = optimize(replace(case, calibration=made), known, Budget("kl", 1.3), ("rtn-int4",))
    assert found.bounds == Bounds(
        default=Bound(0.25), rules=(Rule(codec="rtn-int4", layers=(0, 1)),)
    )
    assert found.best.loss is not None
    assert found.best.loss.kl.mean == pytest.approx(0.2 + 16 * 0.25**2)
    assert found.found.latency_s == pytest.approx(6 + 1.2)  # 300, 300 and 600 bytes
    assert found.codecs == ("cuszp", "rtn-int4")
    assert {form: count for form, count in found.rungs.items() if count} == {
        "0.25": 1,
        "rtn-int4": 2,
    }
    alone = optimize(case, losses(), Budget("kl", 1.3))
    assert found.found.latency_s < alone.found.latency_s


def test_where_one_codec_alone_is_fastest_it_is_the_single_form() -> None:
    case = machine()
    other = codec_figures("rtn-int4", blob_bytes=100)
    made = case.calibration.model_copy(update={"codecs": [*case.calibration.codecs, other]})
    known = losses().model_copy(update={"unbounded": (of_codec("rtn-int4", 0.1, 0.1, 0.1),)})
    found = optimize(replace(case, calibration=made), known, Budget("kl", 1.0), ("rtn-int4",))
    assert "rtn-int4" in {row.name for row in found.others}
    (rule,) = found.bounds.rules
    assert (rule.codec, rule.layers) == ("rtn-int4", (0, 1, 2))


@pytest.mark.parametrize("keep", ["compressed", "both"])
def test_experts_that_stay_compressed_are_held_against_raw_ones_that_cannot(keep: str) -> None:
    found = optimize(machine(keep=keep), losses(), Budget("kl", 3.0))
    plain = optimize(machine(), losses(), Budget("kl", 3.0))
    assert found.others[0] == plain.others[0]
    assert found.others[0].name == "raw"
