"""An expert cache of one or several pools: who is resident, in bytes, and who leaves for whom."""

from collections.abc import Callable, Container, Iterable, Sequence

from offsim.policy.cache import Decision, ExpertCache
from offsim.policy.evictions import Eviction, Key


class PooledCache(ExpertCache):
    """One pool for all layers or one for each, each with its own eviction policy.

    A lookup is atomic: the experts that it asks for never leave for each other, and what finds no
    room passes through. So is a prefetch, and what it lets in does not leave before it was asked
    for or its layer has done without it.

    Args:
        pools: one, or one a layer.
        nbytes: bytes that an expert takes in the cache.
    """

    def __init__(self, pools: Sequence[Eviction], nbytes: Callable[[Key], int]) -> None:
        self._pools, self._nbytes = pools, nbytes
        self._free = [pool.facts.capacity for pool in pools]
        self._resident: list[set[Key]] = [set() for _ in pools]
        self._pending: dict[Key, None] = {}

    def lookup(
        self,
        layer: int,
        accesses: Sequence[int],
        weights: Sequence[float] | None = None,
        outside: Container[int] = (),
    ) -> Decision:
        """Hits stay; misses come in, in router order, where others may leave for them."""
        place = self._place(layer)
        wanted = dict.fromkeys([(layer, expert) for expert in accesses])
        resident = self._resident[place]
        missing = [key for key in wanted if key not in resident]
        hits = tuple([key[1] for key in wanted if key in resident])
        keep = wanted
        if self._pending:  # this layer has now asked for those of its own
            self._pending = {key: None for key in self._pending if key[0] != layer}
            keep = wanted | self._pending
        evicted: list[tuple[Key, ...]] = []
        staged, on_host = [], []
        for key in missing:
            if key[1] in outside:
                evicted.append(())
                on_host.append(key[1])
                continue
            left, kept = self._let_in(key, place, keep)
            evicted.append(left)
            if not kept:
                staged.append(key[1])
        self._pools[place].used(*_last_used(wanted, layer, accesses, weights))
        misses = tuple([expert for _, expert in missing])
        return Decision(layer, hits, misses, tuple(evicted), tuple(staged), on_host=tuple(on_host))

    def fetch(
        self, candidates: Iterable[Key], nbytes: Callable[[Key], int], budget: int
    ) -> tuple[list[Key], list[tuple[Key, ...]], int]:
        """Candidates come in as misses do, but only where they find room in the end."""
        asked = list(candidates)
        keep = self._pending | dict.fromkeys(asked)
        fetched, displaced = [], []
        for key in asked:
            place = self._place(key[0])
            if key in self._resident[place]:
                continue
            issued = nbytes(key)
            if issued > budget:
                break
            if self._has_room(key, place, keep):
                left, _ = self._let_in(key, place, keep)
                self._pending[key] = None
                fetched.append(key)
                displaced.append(left)
                budget -= issued
        return fetched, displaced, budget

    def __contains__(self, key: Key) -> bool:
        """Whether an expert is resident."""
        return key in self._resident[self._place(key[0])]

    def _place(self, layer: int) -> int:
        """Index of a layer's pool."""
        return layer if len(self._pools) > 1 else 0

    def _has_room(self, key: Key, place: int, keep: Container[Key]) -> bool:
        """Whether an expert finds room once all have left that may."""
        pool, room, nbytes = self._pools[place], self._free[place], self._nbytes(key)
        if nbytes <= room:
            return True
        for other in self._resident[place]:
            if other not in keep and pool.may_leave(other):
                room += self._nbytes(other)
                if nbytes <= room:
                    return True
        return False

    def _let_in(self, key: Key, place: int, keep: Container[Key]) -> tuple[tuple[Key, ...], bool]:
        """Who leaves for an expert, and whether it is kept."""
        pool, nbytes = self._pools[place], self._nbytes(key)
        left: list[Key] = []
        while nbytes > self._free[place]:
            victim = pool.victim(keep) if nbytes <= pool.facts.capacity else None
            if victim is None:
                return tuple(left), False
            left.append(victim)
            self._resident[place].discard(victim)
            self._free[place] += self._nbytes(victim)
        self._free[place] -= nbytes
        self._resident[place].add(key)
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
