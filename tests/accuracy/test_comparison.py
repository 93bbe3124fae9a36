import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from offsim.accuracy.comparison import compare, continued, detectable, diverged, share
from offsim.accuracy.questions import Answers
from offsim.accuracy.statistics import detectable_change, difference, mcnemar
from offsim.accuracy.texts import Reading
from offsim.errors import InputError
from offsim.testbed.scores import Answered

RIGHT = np.arange(100) < 90


def test_it_is_made_of_the_paired_statistics() -> None:
    after = np.stack([np.arange(100) < 80, np.arange(100) % 2 == 0])
    found = compare(RIGHT, after)
    assert found.change == difference(RIGHT, after)
    assert found.test.p == mcnemar(RIGHT, after).p
    assert (found.before.mean, found.after.mean) == (0.9, 0.65)
    assert found.detectable == detectable_change(100, found.test.discordance)


def test_the_interval_of_one_seed_is_wilsons() -> None:
    wilson = binomtest(90, 100).proportion_ci(method="wilson")
    found = share(RIGHT)
    assert (found.low, found.high) == (wilson.low, wilson.high)
    assert (found.items, found.seeds) == (100, 1)


def test_the_interval_of_several_seeds_is_never_without_width() -> None:
    found = share(np.ones((3, 50), np.bool_))
    assert found.mean == found.high == 1
    assert found.low == binomtest(50, 50).proportion_ci(method="wilson").low


def test_seeds_that_differ_widen_the_interval() -> None:
    apart = np.stack([np.ones(100, np.bool_), np.zeros(100, np.bool_)])
    found = share(apart)
    alone = share(np.arange(100) < 50)
    assert found.mean == alone.mean == 0.5
    assert found.high - found.low > alone.high - alone.low


def test_without_changes_a_detectable_change_is_one_whose_items_all_change() -> None:
    found = detectable(100, 0.0)
    za, zb = norm.isf(0.025), norm.ppf(0.8)
    assert 100 * found == pytest.approx((za + zb * math.sqrt(1 - found)) ** 2)
    assert found == pytest.approx(detectable_change(100, found * (1 + 1e-9)), rel=1e-3)


@given(items=st.integers(1, 5000), share_=st.floats(0, 1))
def test_more_items_detect_less(items: int, share_: float) -> None:
    found = detectable(items, share_)
    assert found > 0
    assert detectable(items + 1, share_) <= found * (1 + 1e-9)
    assert found <= 1 or math.isinf(found)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(InputError, match="not of the same items"):
        compare(RIGHT, RIGHT[1:])


def reading(nll: list[float], kl: list[float]) -> Reading:
    return Reading(np.array(kl), np.array(nll), np.full(len(nll), 7))


def test_texts_are_compared_by_sequence_and_seed() -> None:
    before = reading([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    after = [
        reading([1.5, 2.5, 3.5], [0.2, 0.3, 0.4]),
        reading([1.7, 2.7, 3.7], [0.4, 0.5, 0.6]),
    ]
    found = diverged(before, after)
    assert found.kl == difference(np.zeros(3), np.array([[0.2, 0.3, 0.4], [0.4, 0.5, 0.6]]))
    assert found.nll.mean == pytest.approx(0.6)
    assert found.nll.low < 0.6 < found.nll.high  # the seeds differ, though no sequence does
    assert found.before == pytest.approx(math.exp(2))
    assert found.after.mean == pytest.approx(math.exp(2.6))
    assert found.after.low == pytest.approx(math.exp(2 + found.nll.low))
    assert (found.after.items, found.after.seeds) == (3, 2)


def test_answers_agree_up_to_their_first_other_token() -> None:
    none: dict[str, Answered] = {}
    one = Answers(none, {"add": np.array([1.0, 0.5]), "sub": np.array([1.0, 1.0])})
    two = Answers(none, {"add": np.array([1.0, 0.0]), "sub": np.array([1.0, 1.0])})
    found = continued([one, two])
    assert (found.agreement.mean, found.exact.mean) == (6.5 / 8, 0.75)
    assert (found.agreement.items, found.agreement.seeds) == (4, 2)
    sub = continued([one, two], "sub")
    assert (sub.agreement.low, sub.agreement.high) == (1.0, 1.0)
    assert sub.exact.low < 1.0  # Wilson's: two answers show little
