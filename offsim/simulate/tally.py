"""What plans ask for, step by step; no clock is needed for it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.plan import NONE, Plan


class Tally(NamedTuple):
    """Columns with a row a step, as `offsim.record.table.StepTable` has them.

    Attributes:
        lookups: [steps] distinct experts asked for.
        misses: [steps] of them neither on the device nor on their way.
        demand_bytes: [steps] over the link, of what was missed.
        prefetch_bytes: [steps] over the link, of what was fetched ahead.
        wasted_bytes: [steps] of these, what nobody asked for before it had to leave.
    """

    lookups: Ints
    misses: Ints
    demand_bytes: Ints
    prefetch_bytes: Ints
    wasted_bytes: Ints


def tally(plans: Sequence[Plan]) -> Tally:
    """Count what plans ask for."""
    counts = Tally(*np.zeros((5, sum(plan.steps for plan in plans)), np.int64))
    used = np.zeros(max(plan.first_load + len(plan.kind) for plan in plans), np.bool_)
    for plan in plans:
        _mark(plan, used)
    first = 0
    for plan in plans:
        _count(plan, used, Tally(*(column[first : first + plan.steps] for column in counts)))
        first += plan.steps
    return counts


@compiled
def _mark(plan: Plan, used: npt.NDArray[np.bool_]) -> None:
    """Note the loads that somebody asked for."""
    for load in plan.load:
        if load != NONE:
            used[load] = True


@compiled
def _count(plan: Plan, used: npt.NDArray[np.bool_], counts: Tally) -> None:
    use = load = 0
    for step in range(len(plan.begin)):
        before = use
        for lookup in range(step * plan.layers, (step + 1) * plan.layers):
            use = plan.uses_to[lookup]
            counts.misses[step] += plan.demands_to[lookup] - load
            while load < plan.demands_to[lookup]:
                counts.demand_bytes[step] += plan.kinds.nbytes[plan.kind[load]]
                load += 1
            while load < plan.loads_to[lookup]:
                nbytes = plan.kinds.nbytes[plan.kind[load]]
                counts.prefetch_bytes[step] += nbytes
                if not used[plan.first_load + load]:
                    counts.wasted_bytes[step] += nbytes
                load += 1
        counts.lookups[step] = use - before
