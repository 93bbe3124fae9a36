import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from offsim.accuracy.statistics import detectable_change, difference, holm, mcnemar
from offsim.errors import InputError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("by_seed", "by_item", "both"),
    [(0.0, 0.3, 0.3), (0.1, 0.3, 0.3), (0.1, 0.0, 0.3), (0.02, 0.1, 0.3), (0.0, 0.0, 0.3)],
)
def test_the_interval_covers_the_truth_in_about_95_of_100_cases(
    by_seed: float, by_item: float, both: float
) -> None:
    drawn = np.random.default_rng(0)
    repeats, seeds, items, truth = 300, 5, 100, -0.2
    covered = 0
    for _ in range(repeats):
        before = drawn.normal(size=items)
        effects = by_seed * drawn.normal(size=(seeds, 1)) + by_item * drawn.normal(size=items)
        after = before + truth + effects + both * drawn.normal(size=(seeds, items))
        found = difference(before, after, resamples=400)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / repeats <= 0.99  # 3 standard errors of 300 repeats are 0.038


def test_one_seed_gives_the_interval_of_the_items() -> None:
    drawn = np.random.default_rng(0)
    before, after = drawn.normal(size=(2, 400))
    found = difference(before, after)
    half = norm.ppf(0.975) * (after - before).std() / 20
    assert found.mean == pytest.approx((after - before).mean())
    assert (found.low, found.high) == pytest.approx(
        (found.mean - half, found.mean + half), abs=0.01
    )
    assert (found.items, found.seeds) == (400, 1)


def test_seeds_that_differ_widen_the_interval() -> None:
    before = np.zeros(200)
    alike = difference(before, np.full((5, 200), 0.1))
    apart = difference(before, np.repeat([[0.0], [0.05], [0.1], [0.15], [0.2]], 200, axis=1))
    assert (alike.low, alike.high) == pytest.approx((0.1, 0.1))
    # Student's interval of five seeds: 2.776 standard errors, here of the discrete resamples.
    half = 2.776 * np.std([0, 0.05, 0.1, 0.15, 0.2], ddof=1) / math.sqrt(5)
    assert (apart.high - apart.low) / 2 == pytest.approx(half, rel=0.1)


def test_no_change_is_no_difference() -> None:
    before = np.arange(50) % 2 == 0
    found = difference(before, np.tile(before, (5, 1)))
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert mcnemar(before, before).p == 1


def test_an_interval_is_a_function_of_its_input() -> None:
    before, after = np.random.default_rng(1).random((2, 100))
    assert difference(before, after) == difference(before, after)
    assert difference(before, after) != difference(before, after, seed=1)


@pytest.mark.parametrize(
    "after", [np.ones(4), np.ones((2, 4)), np.ones((1, 1, 3)), np.ones((0, 3))]
)
def test_values_of_other_items_are_refused(after: np.ndarray) -> None:
    with pytest.raises(InputError, match="not of the same items"):
        difference(np.ones(3), after)


def answers(worse: int, better: int, same: int = 30) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, False, True], [worse, better, same])
    return before, np.repeat([False, True, True], [worse, better, same])


@pytest.mark.parametrize(
    ("worse", "better", "p"),
    # Two-sided sums of the binomial of one half: (1 + 5) / 2^5 * 2, and so on.
    [(5, 0, 2 / 32), (6, 0, 2 / 64), (1, 4, 2 * 6 / 32), (2, 8, 2 * 56 / 1024), (3, 3, 1.0)],
)
def test_mcnemar_is_the_table_of_the_binomial(worse: int, better: int, p: float) -> None:
    found = mcnemar(*answers(worse, better))
    assert found.p == pytest.approx(p)
    assert (found.worse.tolist(), found.better.tolist()) == ([worse], [better])
    assert found.discordance == pytest.approx((worse + better) / (worse + better + 30))


def test_seeds_are_pooled_by_twice_the_median() -> None:
    before = np.ones(40, np.bool_)
    after = np.ones((3, 40), np.bool_)
    for seed, wrong in enumerate((6, 10, 8)):
        after[seed, :wrong] = False
    found = mcnemar(before, after)
    assert found.each == pytest.approx([2 / 2**6, 2 / 2**10, 2 / 2**8])
    assert found.p == pytest.approx(4 / 2**8)


def test_the_same_seed_again_and_again_is_no_evidence_more() -> None:
    before, after = answers(6, 0)
    assert mcnemar(before, np.tile(after, (9, 1))).p >= mcnemar(before, after).p


@pytest.mark.parametrize("discordance", [0.02, 0.05, 0.2])
def test_the_detectable_change_is_found_with_the_power_stated(discordance: float) -> None:
    items = 2000
    change = detectable_change(items, discordance)
    shares = [(discordance + change) / 2, (discordance - change) / 2, 1 - discordance]
    worse, better, _ = np.random.default_rng(0).multinomial(items, shares, 20_000).T
    p = 2 * binom.cdf(np.minimum(worse, better), worse + better, 0.5)
    # The formula is that of the normal test; the exact one loses a little power.
    assert 0.75 <= (p < 0.05).mean() <= 0.82


def test_connor_s_sample_size_comes_back() -> None:
    change = detectable_change(500, 0.1)
    needed = (1.959964 * math.sqrt(0.1) + 0.841621 * math.sqrt(0.1 - change**2)) ** 2 / change**2
    assert needed == pytest.approx(500, rel=1e-5)


@pytest.mark.parametrize(("items", "discordance"), [(1000, 0.0), (5, 0.1)])
def test_where_too_little_changes_nothing_is_detectable(items: int, discordance: float) -> None:
    assert detectable_change(items, discordance) == math.inf


def test_holm_s_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(holm([])) == 0


@given(P_VALUES)
def test_holm_keeps_order_and_lies_between_none_and_bonferroni(values: list[float]) -> None:
    p, corrected = np.array(values), holm(values)
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, p * len(p))).all()
