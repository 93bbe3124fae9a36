"""Residents of the fast decider: one row an expert, in rings that whole numbers link.

Arguments, in all functions: `keys` [experts of all layers + pools, KEY]; the last rows stand for
the pools, one each, as the place where its ring begins and ends; `pool` is the row of a pool.
"""

from offsim.simulate.fast.compiled import compiled
from offsim.simulate.plan import NONE, Ids

# Columns. RESIDENT: whether it has a slot; BEFORE, AFTER: neighbours in the ring of its pool;
# SCORE: lookups that asked for it (lfu), or the next one that will (belady); PENDING: prefetched,
# and its layer not asked since; BRINGS: the prefetch that brings it, not yet used; MARK: the last
# lookup that kept it; COUNT: scratch; FREE: of a pool, slots without an expert.
RESIDENT, BEFORE, AFTER, SCORE, PENDING, BRINGS, MARK, COUNT, FREE = range(9)
KEY = 16  # a row fills a cache line
LRU, FIFO, LFU, BELADY = range(4)
CACHES = {"lru": LRU, "fifo": FIFO, "lfu": LFU, "belady": BELADY}


@compiled
def append(keys: Ids, pool: int, key: int) -> None:
    """Put an expert at the end of a ring."""
    last = keys[pool * KEY + BEFORE]
    keys[key * KEY + BEFORE], keys[key * KEY + AFTER] = last, pool
    keys[last * KEY + AFTER] = keys[pool * KEY + BEFORE] = key


@compiled
def unlink(keys: Ids, key: int) -> None:
    """Take an expert out of its ring."""
    before, after = keys[key * KEY + BEFORE], keys[key * KEY + AFTER]
    keys[before * KEY + AFTER], keys[after * KEY + BEFORE] = after, before


@compiled
def victim(keys: Ids, pool: int, cache: int, now: int) -> int:
    """Who leaves, or NONE; never one that is pending or marked now."""
    chosen = NONE
    key = keys[pool * KEY + AFTER]
    while key != pool:
        if keys[key * KEY + MARK] != now and not keys[key * KEY + PENDING]:
            if cache in (LRU, FIFO):
                return key
            if chosen == NONE or _sooner(
                cache, keys[key * KEY + SCORE], keys[chosen * KEY + SCORE]
            ):
                chosen = key
        key = keys[key * KEY + AFTER]
    return chosen


@compiled
def _sooner(cache: int, score: int, least: int) -> bool:
    """Whether one leaves before another that stands before it in the ring."""
    return score < least if cache == LFU else score > least


@compiled
def used(keys: Ids, pool: int, cache: int, key: int) -> None:
    """A lookup that asked for an expert is over; for caches that remember uses."""
    if cache == LFU:
        keys[key * KEY + SCORE] += 1
    if keys[key * KEY + RESIDENT]:
        unlink(keys, key)
        append(keys, pool, key)


@compiled
def let_in(keys: Ids, pool: int, cache: int, key: int, now: int) -> tuple[bool, int]:
    """Whether an expert finds a slot, and who leaves for it, or NONE."""
    left = NONE
    if keys[pool * KEY + FREE] == 0:
        left = victim(keys, pool, cache, now)
        if left == NONE:
            return False, NONE
        unlink(keys, left)
        keys[left * KEY + RESIDENT] = 0
    else:
        keys[pool * KEY + FREE] -= 1
    keys[key * KEY + RESIDENT] = 1
    append(keys, pool, key)
    return True, left
