from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from offsim.study.optimize.by_task import LEAST, choose

SHAPE = (4, 3)
SECONDS = arrays.arrays(np.float64, SHAPE, elements=st.integers(1, 20).map(float))
DROPS = arrays.arrays(np.float64, SHAPE, elements=st.integers(-5, 20).map(lambda one: one / 100))


@given(seconds=SECONDS, drops=DROPS, loosest=st.integers(0, 2))
def test_no_choice_that_loses_as_little_is_faster(
    seconds: np.ndarray, drops: np.ndarray, loosest: int
) -> None:
    single, choice = choose(seconds, drops, loosest)
    lost, tasks = np.maximum(drops, 0), np.arange(SHAPE[0])
    allowed = lost[:, loosest].sum() + LEAST
    assert lost[tasks, choice].sum() <= allowed + 1e-9
    every = (np.array(one) for one in product(range(SHAPE[1]), repeat=SHAPE[0]))
    within = [one for one in every if lost[tasks, one].sum() <= allowed]
    assert seconds[tasks, choice].sum() == min(seconds[tasks, one].sum() for one in within)
    alike = [rung for rung in range(SHAPE[1]) if lost[:, rung].sum() <= allowed]
    assert single in alike
    assert seconds[:, single].sum() == min(seconds[:, rung].sum() for rung in alike)


def test_a_task_that_bears_more_pays_for_one_that_does_not() -> None:
    seconds = np.array([[8.0, 6.0, 3.0], [8.0, 6.0, 4.0]])
    drops = np.array([[0.0, 0.0, 0.04], [0.0, 0.04, 0.3]])
    single, choice = choose(seconds, drops, 1)
    assert (single, choice.tolist()) == (1, [2, 0])  # 11 s in place of 12, and it loses as little


def test_more_right_answers_in_one_task_allow_no_fewer_in_another() -> None:
    seconds, drops = np.array([[2.0, 1.0]] * 2), np.array([[0.0, -0.1], [0.0, 0.1]])
    _, choice = choose(seconds, drops, 0)
    assert choice.tolist() == [1, 0]
