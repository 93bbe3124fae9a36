"""Residents of the fast decider: one row an expert, in rings that whole numbers link.

Arguments, in all functions: `keys` [experts of all layers + pools, KEY]; the last rows stand for
the pools, one each, as the place where its ring begins and ends; `pool` is the row of a pool.
"""

from offsim.simulate.fast.compiled import SURE, compiled
from offsim.simulate.plan import NONE, Ids

# Columns. RESIDENT: whether it has a slot; BEFORE, AFTER: neighbours in the ring of its pool, or
# itself; SCORE: lookups that asked for it (lfu), or the next one that will (belady); BRINGS: the
# prefetch that brings it, not yet used; SAFE: the last moment at which it may not leave; COUNT:
# scratch; LAYER: whose expert it is; of a pool FREE: slots without an expert.
RESIDENT, BEFORE, AFTER, SCORE, BRINGS, SAFE, COUNT, LAYER = range(8)
FREE = LAYER
KEY = 8  # two rows fill a cache line
LRU, FIFO, LFU, BELADY = range(4)
CACHES = {"lru": LRU, "fifo": FIFO, "lfu": LFU, "belady": BELADY}


@compiled
def append(keys: Ids, pool: int, key: int) -> None:
    """Put an expert at the end of a ring."""
    last = keys[pool * KEY + BEFORE] & SURE
    keys[key * KEY + BEFORE], keys[key * KEY + AFTER] = last, pool
    keys[last * KEY + AFTER] = keys[pool * KEY + BEFORE] = key


@compiled
def unlink(keys: Ids, key: int) -> None:
    """Take an expert out of its ring; nothing happens to one that is in none."""
    before, after = keys[key * KEY + BEFORE] & SURE, keys[key * KEY + AFTER] & SURE
    keys[before * KEY + AFTER], keys[after * KEY + BEFORE] = after, before


@compiled
def leave(keys: Ids, key: int) -> None:
    """An expert gives up its slot."""
    unlink(keys, key)
    keys[key * KEY + BEFORE] = keys[key * KEY + AFTER] = key
    keys[key * KEY + RESIDENT] = 0


@compiled
def victim(keys: Ids, pool: int, cache: int, now: int) -> int:
    """Who leaves, or NONE; never one that is safe now."""
    chosen = NONE
    key = keys[pool * KEY + AFTER] & SURE
    while key != pool:
        if keys[key * KEY + SAFE] < now:
            if cache in (LRU, FIFO):
                return key
            if chosen == NONE or _sooner(
                cache, keys[key * KEY + SCORE], keys[chosen * KEY + SCORE]
            ):
                chosen = key
        key = keys[key * KEY + AFTER] & SURE
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
def make_room(keys: Ids, pool: int, cache: int, now: int) -> tuple[bool, int]:
    """Take a slot of a pool: whether there was one, and who left for it, or NONE."""
    if keys[pool * KEY + FREE]:
        keys[pool * KEY + FREE] -= 1
        return True, NONE
    left = victim(keys, pool, cache, now)
    if left == NONE:
        return False, NONE
    leave(keys, left)
    return True, left
