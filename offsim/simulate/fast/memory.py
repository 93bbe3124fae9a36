"""How a layer went that began while nothing was on its way, to be found again.

It begins with what is fetched ahead once the layer before it is done. Time is whole, so the same
work takes the same time wherever it begins, to the last bit.
"""

from typing import NamedTuple

import numpy as np

from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import SURE, compiled
from offsim.simulate.plan import NONE, Plan

MOST_PLACES = 1 << 15
MIXER = -7046029254386353131  # 2^64 over the golden ratio, odd (Knuth, TAOCP 6.4)
KEY_BITS = 62
# Columns of Memory.kept. WHAT: the layer's key, 0 where free; DENSE: its dense part, ps, where
# something is fetched ahead before it; DURATION, IDLE: ps; LATE: see `Clocks`; from STALL on: ps
# that each stage added to the stall.
WHAT, DENSE, DURATION, IDLE, LATE, STALL = range(6)


class Memory(NamedTuple):
    """A hash table with open addressing.

    Attributes:
        kept: [places, STALL + stages + 1] a power of two; no place where nothing is remembered.
        counts: [2] how many are kept, and how many layers were gone through.
        most: digits of a key; longer layers have none.
        bases: [3] of a key: of its digits, of the number of hits, of the index of a duration.
    """

    kept: Ints
    counts: Ints
    most: int
    bases: Ints


def fresh_memory(plan: Plan, uses: int, ahead: int) -> Memory:
    """An empty memory for a plan; one without a place where it would not pay.

    Args:
        plan: whose layers.
        uses: of a lookup, at most.
        ahead: loads that are fetched ahead once a layer is done, at most.
    """
    lookups = len(plan.before)
    places = min(MOST_PLACES, 1 << (2 * lookups).bit_length()) if plan.recurs else 0
    numbers = len(plan.kinds.chunks) + ahead, uses, len(plan.durations)
    bases = np.array(numbers, np.int64) + 1
    bits = np.log2(bases.astype(float))
    return Memory(
        np.zeros((places, STALL + 1 + plan.kinds.stages.shape[1]), np.int64),
        np.zeros(2, np.int64),
        int((KEY_BITS - bits[1] - bits[2]) / max(bits[0], 1)),  # no kinds: nothing is loaded
        bases,
    )


@compiled
def widest(plan: Plan) -> tuple[int, int]:
    """The most uses of a lookup, and the most loads that are fetched ahead after one."""
    uses = ahead = first = 0
    for lookup in range(len(plan.uses_to)):
        uses = max(uses, plan.uses_to[lookup] - first)
        ahead = max(ahead, plan.loads_to[lookup] - plan.demands_to[lookup])
        first = plan.uses_to[lookup]
    return uses, ahead


@compiled
def is_full(memory: Memory) -> bool:
    """Whether it has no room for a layer more."""
    return memory.counts[0] >= len(memory.kept) // 4 * 3


@compiled
def pays(memory: Memory, layers: int) -> bool:
    """Whether to look for a layer, after so many of the plan: one in four was found, or may be."""
    if len(memory.kept) == 0:
        return False
    return not is_full(memory) or 4 * memory.counts[1] < 3 * layers


@compiled
def drops_before(plan: Plan, load: int) -> int:
    """Where the drops for the loads before one end."""
    return int(plan.drops_to[load - 1]) if load else 0


@compiled
def key_of(
    memory: Memory,
    plan: Plan,
    first_use: int,
    last_use: int,
    first_load: int,
    demands: int,
    last_load: int,
) -> int:
    """A number above 0 for each different layer; 0 for one that is not remembered.

    It has the kinds of what is fetched ahead as digits, then what of that is given up for demands,
    then whom the layer has to await, in router order: kinds of demands, and what of that was
    fetched ahead. Zeros part the three.

    Args:
        memory: where it is to be found.
        plan: of the layer.
        first_use: of the layer.
        last_use: where its uses end.
        first_load: of what is fetched ahead.
        demands: the first load of the layer's own.
        last_load: where these end.
    """
    if first_use == last_use or last_load - first_load > memory.most:
        return 0
    how = plan.run[first_use]
    for use in range(first_use + 1, last_use):
        if plan.run[use] != how:
            return 0
    if first_load == demands:  # all that it may have to await are its own demands
        key = 0
        for load in range(demands, last_load):
            key = key * memory.bases[0] + plan.kind[load] + 1
        awaited = digits = last_load - demands
    else:
        key, awaited, digits = _foreseen(
            memory, plan, first_use, last_use, first_load, demands, last_load
        )
    if digits > memory.most:
        return 0
    hits = last_use - first_use - awaited
    return (key * memory.bases[1] + hits) * memory.bases[2] + how + 1


@compiled
def _foreseen(
    memory: Memory,
    plan: Plan,
    first_use: int,
    last_use: int,
    first_load: int,
    demands: int,
    last_load: int,
) -> tuple[int, int, int]:
    """A key's digits, how many uses of them may have to be awaited, and how many there are."""
    base, kinds, ahead = memory.bases[0], len(plan.kinds.chunks), demands - first_load
    own = plan.first_load + first_load
    key: int = 0
    for load in range(first_load, demands):
        key = key * base + plan.kind[load] + 1
    key *= base
    digits = ahead + 2
    for nth in range(drops_before(plan, first_load), drops_before(plan, last_load)):
        dropped = plan.drop[nth] - own
        if dropped >= 0:
            if nth < drops_before(plan, demands):
                return 0, 0, memory.most + 1  # it leaves at once for more of its like: no key
            key = key * base + kinds + 1 + dropped
            digits += 1
    key *= base
    awaited = 0
    for use in range(first_use, last_use):
        load = plan.load[use] - own
        if load >= 0:
            key = key * base + 1 + (kinds + load if load < ahead else plan.kind[first_load + load])
            awaited += 1
    return key, awaited, digits + awaited


@compiled
def place_of(memory: Memory, key: int, dense: int) -> int:
    """Where a layer is or would be; NONE for key 0, and where there is no room."""
    if key == 0:
        return NONE
    kept = memory.kept
    last = len(kept) - 1 & SURE
    place = (((key ^ dense << 20) * MIXER) >> 40) & last
    while kept[place, WHAT] != 0 and (kept[place, WHAT] != key or kept[place, DENSE] != dense):
        place = (place + 1) & last
    if kept[place, WHAT] == 0 and is_full(memory):
        return NONE
    return place


@compiled
def keep(
    memory: Memory,
    place: int,
    key: int,
    dense: int,
    duration: int,
    idle: int,
    late: int,
    before: Ints,
    after: Ints,
) -> None:
    """Remember how a layer went, with the stall of its step before and after it."""
    memory.counts[0] += 1
    kept = memory.kept
    kept[place, WHAT], kept[place, DENSE] = key, dense
    kept[place, DURATION], kept[place, IDLE], kept[place, LATE] = duration, idle, late
    for stage in range(len(after)):
        kept[place, STALL + stage] = after[stage] - before[stage]
