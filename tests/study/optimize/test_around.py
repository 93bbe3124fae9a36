from dataclasses import replace

import pytest

from offsim.policy.policy import Policy
from offsim.study.case import Case
from offsim.study.optimize.around import BY, OCTAVES, prices, swings, winners
from offsim.study.optimize.ladder import ladder_of
from tests.builders import figure

from .cases import COSTS, losses, machine


def tpot(case: Case) -> float:
    return case.predict().tpot_s


def test_a_figure_swings_by_what_it_takes_by_hand() -> None:
    # A token computes for 6 s and waits for three blobs of 800 bytes at 1000 bytes/s: 2.4 s.
    found = {one.figure: one for one in swings(machine(), tpot)}
    compute, link = found["compute"], found["bandwidth of the link"]
    assert (compute.less_s, compute.more_s) == pytest.approx((6 / BY + 2.4, 6 * BY + 2.4))
    assert (link.less_s, link.more_s) == pytest.approx((6 + 2.4 * BY, 6 + 2.4 / BY))
    blobs = found["size of the blobs"]
    assert (blobs.less_s, blobs.more_s) == pytest.approx((6 + 2.4 / BY, 6 + 2.4 * BY))
    assert found["decoding"].less_s == found["hand-overs"].more_s == pytest.approx(8.4)
    slots = found["slots of a layer, one less or more"]
    assert slots.less_s == pytest.approx(8.4)
    assert slots.more_s == pytest.approx(6 + 2.4 / 4)  # two experts alternate: one first use


def test_the_widest_swing_comes_first() -> None:
    widths = [abs(one.more_s - one.less_s) for one in swings(machine(), tpot)]
    assert widths == sorted(widths, reverse=True)


def test_a_place_asks_its_loss_for_the_time_it_saves_by_hand() -> None:
    # From 0.25 to 0.5 layers lose 1, 4 and 16 times 0.1875 more, and save 200 bytes: 0.2 s.
    case, sensitivity = machine(), losses()
    ladder = ladder_of(sensitivity, case.calibration, ["cuszp"])
    found = prices(case, ladder, 3.0, tpot)
    assert found == pytest.approx([0.9375 * cost for cost in COSTS])
    assert prices(case, ladder, 100.0, tpot) == []  # all have the loosest


def test_the_fastest_way_is_named_in_each_cell() -> None:
    case = machine()
    ways = {
        "raw": Policy(slots=1),
        "tight": Policy(codec="cuszp", bound=0.125, slots=1),
        "loose": Policy(codec="cuszp", bound=1.0, slots=1),
    }
    found = winners(case, ways, tpot)
    assert found.slots == [1, 2, 3, 4]
    assert found.bytes_per_s == [1000 * 2.0**octave for octave in OCTAVES]
    assert {name for row in found.names for name in row} == {"loose"}
    assert found.gains[3][0] == pytest.approx(1 - (6 + 0.6) / (6 + 3.0))
    assert found.gains[3][1] == pytest.approx(1 - (6 + 0.6 / 4) / (6 + 3.0 / 4))


def test_decoding_that_takes_too_long_leaves_raw() -> None:
    case, slow = machine(), {"decode_s": figure(50.0)}
    codecs = [
        one.model_copy(update=slow) if one.codec == "cuszp" else one
        for one in case.calibration.codecs
    ]
    case = replace(case, calibration=case.calibration.model_copy(update={"codecs": codecs}))
    ways = {"raw": Policy(slots=1), "loose": Policy(codec="cuszp", bound=1.0, slots=1)}
    found = winners(case, ways, tpot)
    assert {name for row in found.names for name in row} == {"raw"}
    assert {gain for row in found.gains for gain in row} == {0}
