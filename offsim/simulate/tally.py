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
        again: [steps] of them on the device as blobs alone, which are decoded for this use.
        demand_bytes: [steps] over the link, of what was missed.
        prefetch_bytes: [steps] over the link, of what was fetched ahead.
        wasted_bytes: [steps] of these, what nobody asked for before it had to leave.
        disk_bytes: [steps] from disk, of both.
    """

    lookups: Ints
    misses: Ints
    again: Ints
    demand_bytes: Ints
    prefetch_bytes: Ints
    wasted_bytes: Ints
    disk_bytes: Ints


def tally(plans: Sequence[Plan]) -> Tally:
    """Count what plans ask for."""
    counts = Tally(*np.zeros((7, sum(plan.steps for plan in plans)), np.int64))
    used = np.zeros(0, np.bool_)  # nothing was fetched ahead
    if any(bool((plan.demands_to != plan.loads_to).any()) for plan in plans):
        loads = max(plan.first_load + len(plan.kind) for plan in plans)
        used = np.zeros(loads - NONE, np.bool_)
        for plan in plans:
            _mark(plan, used)
    first = 0
    for plan in plans:
        _count(plan, used, Tally(*(column[first : first + plan.steps] for column in counts)))
        first += plan.steps
    return counts


@compiled
def _mark(plan: Plan, used: npt.NDArray[np.bool_]) -> None:
    """Note the loads that somebody asked for; the first place is that of NONE."""
    for load in plan.load:
        used[load - NONE] = True


@compiled
def _count(plan: Plan, used: npt.NDArray[np.bool_], counts: Tally) -> None:
    nbytes, disk_bytes, resident = plan.kinds.nbytes, plan.kinds.disk_bytes, plan.kinds.resident
    alike = len(nbytes) > 0
    for size in nbytes:
        alike = alike and size == nbytes[0]
    plain = not disk_bytes.any() and not resident.any()
    use = load = 0
    for step in range(len(plan.begin)):
        first, end = step * plan.layers, (step + 1) * plan.layers
        last = plan.loads_to[end - 1]
        demand = ahead = wasted = disk = there = fetched = 0
        if alike:
            demand = (last - load) * nbytes[0]
        else:
            for at in range(load, last):
                demand += nbytes[plan.kind[at]]
        if not plain:
            for at in range(load, last):
                disk += disk_bytes[plan.kind[at]]
                there += resident[plan.kind[at]]
        if len(used):
            for lookup in range(first, end):
                fetched += plan.loads_to[lookup] - plan.demands_to[lookup]
                for at in range(plan.demands_to[lookup], plan.loads_to[lookup]):
                    ahead += nbytes[plan.kind[at]]
                    wasted += nbytes[plan.kind[at]] * (not used[plan.first_load + at - NONE])
        counts.lookups[step] = plan.uses_to[end - 1] - use
        counts.misses[step], counts.again[step] = last - load - fetched - there, there
        counts.demand_bytes[step], counts.prefetch_bytes[step] = demand - ahead, ahead
        counts.wasted_bytes[step], counts.disk_bytes[step] = wasted, disk
        use, load = plan.uses_to[end - 1], last
