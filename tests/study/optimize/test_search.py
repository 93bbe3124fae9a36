"""The search finds the fastest choice, on made-up latencies of which all are known."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.errors import InputError
from offsim.study.optimize import search
from offsim.study.optimize.knapsack import Choice, summed
from offsim.study.optimize.search import Problem, fastest, uniform


def problem(seed: int, places: int, rungs: int, budget: float, coupling: float = 0.0) -> Problem:
    """Looser rungs are faster; what they are worth together is less than the sum."""
    rng = np.random.default_rng(seed)
    losses = np.cumsum(rng.random((places, rungs)), axis=1)
    saved = np.cumsum(rng.random((places, rungs)), axis=1)

    def latency(choice: Choice) -> float:
        gain = summed(saved, choice)
        return 10.0 * places - gain + coupling * gain**2 / (10 * places)

    return Problem(losses, budget * float(losses[:, 0].sum()), latency)


def best(of: Problem) -> float:
    """By trying everything."""
    places, rungs = of.losses.shape
    every = (np.array(one, np.intp) for one in product(range(rungs), repeat=places))
    return min(of.latency(choice) for choice in every if of.allowed(choice))


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seeds, st.integers(1, 4), st.integers(2, 4), st.floats(1.0, 4.0), st.floats(0, 0.5))
def test_the_optimum_equals_brute_force_where_all_can_be_tried(
    seed: int, places: int, rungs: int, budget: float, coupling: float
) -> None:
    asked = problem(seed, places, rungs, budget, coupling)
    found = fastest(asked)
    assert found.exact
    assert found.latency_s == pytest.approx(best(asked), rel=1e-12)
    assert found.gap == 0
    assert asked.allowed(found.choice)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, st.integers(2, 5), st.integers(2, 4), st.floats(1.2, 4.0))
def test_where_changes_add_up_the_knapsack_alone_finds_the_optimum(
    seed: int, places: int, rungs: int, budget: float
) -> None:
    asked = problem(seed, places, rungs, budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ENUMERATED", 0)
        found = fastest(asked)
    assert not found.exact
    assert found.latency_s == pytest.approx(best(asked), rel=1e-5)
    assert found.gap == pytest.approx(0, abs=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, st.integers(2, 5), st.floats(1.2, 4.0), st.floats(0.1, 0.5))
def test_what_is_found_is_never_slower_than_one_bound_for_all(
    seed: int, places: int, budget: float, coupling: float
) -> None:
    asked = problem(seed, places, 4, budget, coupling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ENUMERATED", 0)
        found = fastest(asked)
    assert asked.allowed(found.choice)
    assert found.latency_s <= asked.seconds(uniform(asked))
    assert found.promised_s <= found.latency_s


def test_a_budget_that_nothing_keeps_to_is_refused() -> None:
    with pytest.raises(InputError, match="tightest bounds of the ladder lose"):
        fastest(problem(1, 3, 3, 0.5))
