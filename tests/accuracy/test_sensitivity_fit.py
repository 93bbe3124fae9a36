import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offsim.accuracy.sensitivity_fit import (
    chosen_curve,
    expert_shares,
    judged,
    matrix_shares,
    terms,
)
from offsim.accuracy.sensitivity_parts import Joint, Ranged
from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds

from .sensitive import LADDER, USAGE

EVEN = np.full((3, 4), 5)
UNKNOWN = np.full((3, 4), np.nan)
X = np.array(LADDER)


def with_ends(kl: np.ndarray) -> np.ndarray:
    return np.stack([kl, 0.5 * kl, 2 * kl], axis=-1)


def test_a_power_law_is_found() -> None:
    kl = np.array([cost * X**1.7 for cost in (1.0, 2.0, 30.0)])
    found = terms(LADDER, with_ends(kl), None, UNKNOWN, USAGE)
    assert found.curve_errors == pytest.approx({"power": 0.0, "ladder": 0.0}, abs=1e-9)
    for layer, row in zip(found.layers, kl, strict=True):
        assert [rung.mean for rung in layer.kl] == pytest.approx(row)
        assert [rung.low for rung in layer.kl] == pytest.approx(0.5 * row)
        assert [rung.high for rung in layer.kl] == pytest.approx(2 * row)
    assert not found.matrices_measured
    assert found.layers[0].matrices == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_noise_about_a_power_law_is_smoothed_by_it() -> None:
    wide = np.geomspace(0.01, 1, 9)
    kl = wide**2 * np.array([1.2, 0.8] * 4 + [1.2])
    curve, errors = chosen_curve(wide, np.stack([kl, kl]))
    assert curve == "power"
    assert errors["power"] < errors["ladder"]


def test_a_curve_that_bends_is_followed() -> None:
    wide = np.geomspace(0.01, 10, 9)
    curve, errors = chosen_curve(wide, np.array([wide**2 / (1 + wide**2)]))
    assert curve == "ladder"
    assert errors["ladder"] < errors["power"]


def test_a_fall_within_the_noise_is_levelled() -> None:
    kl = np.array([[0.1, 0.11, 0.09, 0.1, 50.0, 55.0]] * 3)
    ladder = (*LADDER, 2.0, 4.0)
    found = terms(ladder, with_ends(kl), None, UNKNOWN, EVEN)
    assert found.curve == "ladder"
    means = [rung.mean for rung in found.layers[0].kl]
    middle = (0.11 * 0.09 * 0.1) ** (1 / 3)
    assert means == pytest.approx([middle] * 4 + [50.0, 55.0], rel=0.02)
    assert means == sorted(means)


@given(arrays(np.float64, (2, 4), elements=st.floats(-1e-8, 10)))
def test_any_measured_values_give_a_loss_that_never_falls(kl: np.ndarray) -> None:
    found = terms(LADDER, with_ends(kl), None, UNKNOWN[:2], USAGE[:2])  # checked by the schema
    for layer in found.layers:
        for rung in layer.kl:
            assert 0 < rung.low <= rung.mean * (1 + 1e-9)
            assert rung.mean <= rung.high * (1 + 1e-9)


def test_few_rungs_choose_nothing() -> None:
    assert chosen_curve((0.1, 0.2, 0.4), np.ones((2, 3))) == ("ladder", {})


def test_shares_of_matrices_do_not_depend_on_the_rung() -> None:
    kl = np.array([[[0.1, 0.2, 0.7], [1.0, 2.0, 7.0]]])
    assert matrix_shares(kl)[0] == pytest.approx([0.1, 0.2, 0.7])


def test_an_expert_that_was_not_measured_costs_as_much_an_activation() -> None:
    kl = np.array([[0.8, 0.4, np.nan, np.nan]])
    usage = np.array([[8, 4, 2, 2]])
    assert expert_shares(kl, usage)[0] == pytest.approx([0.5, 0.25, 0.125, 0.125])


def test_without_any_measured_expert_usage_decides() -> None:
    assert expert_shares(UNKNOWN, USAGE)[1] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert expert_shares(UNKNOWN, np.zeros((3, 4), np.int64))[0] == pytest.approx([0.25] * 4)
    assert expert_shares(np.zeros((3, 4)), USAGE)[1] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def joint(predicted: float, measured: float) -> Joint:
    def at(value: float) -> Ranged:
        return Ranged(mean=value, low=value, high=value)

    return Joint(
        varied="layers",
        bounds=Bounds(default=Bound(0.5, "sigma")),
        kl=at(measured),
        nll=at(0.0),
        predicted=at(predicted),
    )


def test_sums_are_judged_by_what_was_measured() -> None:
    pairs = [(0.005, 0.005), (0.06, 0.05), (0.5, 0.5), (3.0, 6.0), (4.0, 2.0)]
    found = judged([joint(*pair) for pair in reversed(pairs)])
    assert found is not None
    assert found.joints == 5
    assert found.median == pytest.approx(0.2)
    assert found.worst == pytest.approx(1.0)
    assert found.holds_up_to == 0  # five are too few to say where sums are right
    assert found.spread > 1.9  # the largest are wrong by a factor of two
    assert found.kendall_tau == pytest.approx(0.8)  # one pair of ten is swapped
    assert [(one.up_to, one.joints) for one in found.regimes] == [
        (0.01, 1),
        (0.1, 1),
        (1.0, 1),
        (1e6, 2),
    ]
    assert [one.right for one in found.regimes] == [1, 1, 1, 0]
    assert found.regimes[-1].bias == pytest.approx(0.25)


def test_one_in_ten_may_be_wrong() -> None:
    pairs = [(0.001 * n, 0.001 * n) for n in range(1, 10)]
    wrong = [joint(0.0005, 0.001), *(joint(*pair) for pair in pairs)]
    found = judged(wrong)
    assert found is not None
    assert found.holds_up_to == pytest.approx(0.009)
    assert found.worst == pytest.approx(0.5)
    assert 1 < found.spread < 2
    more = judged([*wrong, joint(0.02, 0.2)])
    assert more is not None
    assert more.holds_up_to == pytest.approx(0.009)
    fewer = judged(wrong[1:])
    assert fewer is not None
    assert fewer.holds_up_to == 0


def test_what_is_right_further_up_does_not_make_up_for_what_was_wrong() -> None:
    mild = [joint(0.001 * n, 0.01 * n) for n in range(1, 3)]
    large = [joint(0.01 * n, 0.01 * n) for n in range(1, 40)]  # 39 of 41 are right in the end
    found = judged([*mild, *large])
    assert found is not None
    assert found.holds_up_to == 0
    assert [(one.joints, one.right) for one in found.regimes] == [(1, 0), (2, 1), (9, 9), (29, 29)]


def test_the_first_size_that_is_wrong_ends_it() -> None:
    right = [joint(0.001 * n, 0.001 * n) for n in range(1, 13)]
    wrong = [joint(0.02 * n, 0.1 * n) for n in range(1, 4)]
    again = [joint(0.1 * n, 0.1 * n) for n in range(1, 31)]  # 42 of 45 are right in the end
    found = judged([*right, *wrong, *again])
    assert found is not None
    assert found.holds_up_to == pytest.approx(0.02)  # 12 of 13


def test_injections_without_any_effect_are_not_judged() -> None:
    assert judged([]) is None
    assert judged([joint(0.0, 0.0)]) is None
    found = judged([joint(1e-12, 0.0), joint(0.1, 0.1)])
    assert found is not None
    assert found.joints == 1
    assert found.kendall_tau is None
