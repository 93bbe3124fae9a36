"""The knapsack finds what trying everything finds."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.study.optimize.knapsack import cheapest, summed


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(0.1, 2))
def test_it_equals_brute_force(places: int, rungs: int, seed: int, tightness: float) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.normal(size=(places, rungs))
    losses = np.sort(rng.random((places, rungs)), axis=1)
    budget = tightness * float(losses[:, 0].sum()) + 1e-6
    near = rng.integers(0, rungs, places)
    changes = int(rng.integers(0, places + 1))
    every = [np.array(one) for one in product(range(rungs), repeat=places)]
    for limit in (None, changes):
        allowed = [
            summed(costs, one)
            for one in every
            if summed(losses, one) <= budget and (limit is None or (one != near).sum() <= limit)
        ]
        found = cheapest(costs, losses, budget, near, limit)
        if not allowed:
            assert found is None
            continue
        assert found is not None
        assert summed(losses, found) <= budget * (1 + 1e-6)
        assert summed(costs, found) <= min(allowed) + 1e-9
