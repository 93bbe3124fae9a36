"""A rung for each place: the cheapest choice within a budget, a multiple-choice knapsack."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

Floats = npt.NDArray[np.float64]
Choice = npt.NDArray[np.intp]
"""[places] the rung that each place has."""


def cheapest(
    costs: Floats,
    losses: Floats,
    budget: float,
    near: Choice | None = None,
    changes: int | None = None,
) -> Choice | None:
    """The choice whose costs sum to the least while its losses sum to no more than a budget.

    Solved by HiGHS through `scipy.optimize.milp`, to a gap of zero.

    Args:
        costs: [places, rungs] of any unit, of any sign.
        losses: [places, rungs] >= 0.
        budget: that the losses may sum to, in their unit.
        near: a choice from which the answer may not be far.
        changes: in how many places at most it may differ from that.

    Returns:
        [places] rungs; None where no choice is within the budget.
    """
    places, rungs = costs.shape
    one_each = np.kron(np.eye(places), np.ones(rungs))
    constraints = [
        LinearConstraint(one_each, 1, 1),
        # In units of the budget, so that tolerances of the solver mean the same at any size.
        LinearConstraint(losses.reshape(1, -1) / budget, -np.inf, 1),
    ]
    if near is not None and changes is not None:
        same = np.zeros((places, rungs))
        same[np.arange(places), near] = 1
        constraints.append(LinearConstraint(same.reshape(1, -1), places - changes, np.inf))
    scale = float(np.abs(costs).max()) or 1.0
    found = milp(
        costs.ravel() / scale,
        integrality=np.ones(costs.size, np.uint8),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    choice: Choice = found.x.reshape(places, rungs).argmax(axis=1)
    return choice


def summed(table: Floats, choice: Choice) -> float:
    """What a choice sums to in a table [places, rungs]."""
    return float(table[np.arange(len(choice)), choice].sum())
