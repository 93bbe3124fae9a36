"""Residents of the fast decider: one row an expert, in lists that whole numbers link.

Arguments, in all functions: `keys` [experts of all layers, KEY] and `pools` [pools, POOL].
"""

from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.plan import NONE

# Columns of `keys`. RESIDENT: whether it has a slot; BEFORE, AFTER: neighbours in the list of its
# pool; SCORE: lookups that asked for it (lfu), or the next lookup that will (belady); PENDING:
# prefetched, and its layer not asked since; BRINGS: the prefetch that brings it, not yet used;
# MARK: the last lookup that kept it; COUNT: scratch.
RESIDENT, BEFORE, AFTER, SCORE, PENDING, BRINGS, MARK, COUNT, KEY = range(9)
# Columns of `pools`: ends of the list, NONE where it is empty, and slots that are free.
FIRST, LAST, FREE, POOL = range(4)
LRU, FIFO, LFU, BELADY = range(4)
CACHES = {"lru": LRU, "fifo": FIFO, "lfu": LFU, "belady": BELADY}


@compiled
def append(keys: Ints, pools: Ints, pool: int, key: int) -> None:
    """Put an expert at the end of a list."""
    last = pools[pool, LAST]
    keys[key, BEFORE], keys[key, AFTER] = last, NONE
    if last == NONE:
        pools[pool, FIRST] = key
    else:
        keys[last, AFTER] = key
    pools[pool, LAST] = key


@compiled
def unlink(keys: Ints, pools: Ints, pool: int, key: int) -> None:
    """Take an expert out of its list."""
    before, after = keys[key, BEFORE], keys[key, AFTER]
    if before == NONE:
        pools[pool, FIRST] = after
    else:
        keys[before, AFTER] = after
    if after == NONE:
        pools[pool, LAST] = before
    else:
        keys[after, BEFORE] = before


@compiled
def victim(keys: Ints, pools: Ints, pool: int, cache: int, now: int) -> int:
    """Who leaves, or NONE; never one that is pending or marked now."""
    chosen = NONE
    key = pools[pool, FIRST]
    while key != NONE:
        if keys[key, MARK] != now and not keys[key, PENDING]:
            if cache in (LRU, FIFO):
                return key
            score = keys[key, SCORE]
            if chosen == NONE or (cache == LFU and score < keys[chosen, SCORE]) or (cache == BELADY and score > keys[chosen, SCORE]):
                chosen = key
        key = keys[key, AFTER]
    return chosen


@compiled
def used(keys: Ints, pools: Ints, pool: int, cache: int, key: int) -> None:
    """A lookup that asked for an expert is over."""
    if cache == LFU:
        keys[key, SCORE] += 1
    if cache in (LRU, LFU) and keys[key, RESIDENT] and pools[pool, LAST] != key:
        unlink(keys, pools, pool, key)
        append(keys, pools, pool, key)


@compiled
def let_in(keys: Ints, pools: Ints, pool: int, cache: int, key: int, now: int) -> tuple[bool, int]:
    """Whether an expert finds a slot, and who leaves for it, or NONE."""
    left = NONE
    if pools[pool, FREE] == 0:
        left = victim(keys, pools, pool, cache, now)
        if left == NONE:
            return False, NONE
        unlink(keys, pools, pool, left)
        keys[left, RESIDENT] = 0
        pools[pool, FREE] += 1
    pools[pool, FREE] -= 1
    keys[key, RESIDENT] = 1
    append(keys, pools, pool, key)
    return True, left
