"""An expert cache of one or several pools: who is resident, in bytes, and who leaves for whom."""

from collections.abc import Callable, Container, Sequence

from offsim.policy.cache import Decision, ExpertCache
from offsim.policy.evictions import Eviction, Key


class PooledCache(ExpertCache):
    """One pool for all layers or one for each, each with its own eviction policy.

    A lookup is atomic: the experts that it asks for never leave for each other, and what finds no
    room passes through.

    Args:
        pools: one, or one a layer.
        nbytes: bytes that an expert takes in the cache.
    """

    def __init__(self, pools: Sequence[Eviction], nbytes: Callable[[Key], int]) -> None:
        self._pools, self._nbytes = pools, nbytes
        self._free = [pool.facts.capacity for pool in pools]
        self._resident: set[Key] = set()

    def lookup(
        self, layer: int, accesses: Sequence[int], weights: Sequence[float] | None = None
    ) -> Decision:
        """Hits stay; misses come in, in router order, where others may leave for them."""
        place = layer if len(self._pools) > 1 else 0
        wanted = dict.fromkeys([(layer, expert) for expert in accesses])
        resident = self._resident
        missing = [key for key in wanted if key not in resident]
        hits = tuple([key[1] for key in wanted if key in resident])
        evicted, staged = [], []
        for key in missing:
            left, kept = self._let_in(key, place, wanted)
            evicted.append(left)
            if not kept:
                staged.append(key[1])
        self._pools[place].used(*_last_used(wanted, layer, accesses, weights))
        misses = tuple([expert for _, expert in missing])
        return Decision(layer, hits, misses, tuple(evicted), tuple(staged))

    def _let_in(self, key: Key, place: int, keep: Container[Key]) -> tuple[tuple[Key, ...], bool]:
        """Who leaves for an expert, and whether it is kept."""
        pool, nbytes = self._pools[place], self._nbytes(key)
        left: list[Key] = []
        while nbytes > self._free[place]:
            victim = pool.victim(keep) if nbytes <= pool.facts.capacity else None
            if victim is None:
                return tuple(left), False
            left.append(victim)
            self._resident.discard(victim)
            self._free[place] += self._nbytes(victim)
        self._free[place] -= nbytes
        self._resident.add(key)
        pool.admit(key, nbytes)
        return tuple(left), True


def _last_used(
    wanted: dict[Key, None], layer: int, accesses: Sequence[int], weights: Sequence[float] | None
) -> tuple[list[Key], Sequence[float]]:
    """The experts of a lookup in the order of their last use, and their summed weights."""
    if len(wanted) == len(accesses):  # a token asks for none twice
        return list(wanted), weights or [0.0] * len(accesses)
    sums = dict.fromkeys(reversed(accesses), 0.0)
    for expert, weight in zip(accesses, weights or (), strict=False):
        sums[expert] += weight
    used = list(reversed(sums))
    return [(layer, expert) for expert in used], [sums[expert] for expert in used]
