"""How a layer went that began while nothing was on its way, to be found again.

Time is whole, so the same work takes the same time wherever it begins, to the last bit.
"""

from typing import NamedTuple

import numpy as np

from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.plan import NONE, Plan

PLACES = 1 << 16
FULL_AT = PLACES * 3 // 4
MIXER = -7046029254386353131  # 2^64 over the golden ratio, odd (Knuth, TAOCP 6.4)


class Memory(NamedTuple):
    """A hash table with open addressing.

    Attributes:
        keys: [places] of what was kept, 0 where free; no place at all where nothing is remembered.
        went: [places, 2 + stages + 1] ps: duration, idle time, what each stage added to the stall.
        counts: [1] how many are kept.
        most_loads: longer layers have no key.
        bases: [3] numbers of kinds, of uses and of durations, each and one.
    """

    keys: Ints
    went: Ints
    counts: Ints
    most_loads: int
    bases: Ints


def fresh_memory(plan: Plan) -> Memory:
    """An empty memory for a plan; one without a place where it would not pay."""
    pays = plan.recurs and bool((plan.demands_to == plan.loads_to).all())
    places = PLACES if pays else 0
    uses = int(np.diff(plan.uses_to, prepend=0).max(initial=0))
    bases = np.array([len(plan.kinds.chunks) + 1, uses + 1, len(plan.durations) + 1], np.int64)
    bits = np.log2(bases.astype(float))
    return Memory(
        np.zeros(places, np.int64),
        np.empty((places, 3 + plan.kinds.stages.shape[1]), np.int64),
        np.zeros(1, np.int64),
        int((62 - bits[1] - bits[2]) / max(bits[0], 1)),  # no kinds: nothing is loaded
        bases,
    )


@compiled
def key_of(
    memory: Memory, plan: Plan, first_use: int, last_use: int, first_load: int, last_load: int
) -> int:
    """A number above 0 for each different layer; 0 for one that is not remembered."""
    misses = last_load - first_load
    if misses > memory.most_loads or first_use == last_use:
        return 0
    how = plan.run[first_use]
    for use in range(first_use + 1, last_use):
        if plan.run[use] != how:
            return 0
    key: int = 0
    for load in range(first_load, last_load):
        key = key * memory.bases[0] + plan.kind[load] + 1
    hits = last_use - first_use - misses
    return (key * memory.bases[1] + hits) * memory.bases[2] + how + 1


@compiled
def place_of(memory: Memory, key: int) -> int:
    """Where a key is or would be; NONE for key 0, and where there is no room."""
    if key == 0:
        return NONE
    place = ((key * MIXER) >> 40) & (PLACES - 1)
    while memory.keys[place] != 0 and memory.keys[place] != key:
        place = (place + 1) & (PLACES - 1)
    if memory.keys[place] == 0 and memory.counts[0] >= FULL_AT:
        return NONE
    return place


@compiled
def keep(
    memory: Memory, place: int, key: int, duration: int, idle: int, before: Ints, after: Ints
) -> None:
    """Remember how a layer went, with the stall of its step before and after it."""
    memory.keys[place] = key
    memory.counts[0] += 1
    memory.went[place, 0], memory.went[place, 1] = duration, idle
    for stage in range(len(after)):
        memory.went[place, 2 + stage] = after[stage] - before[stage]
