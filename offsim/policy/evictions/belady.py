"""The bound: who is needed again last leaves."""

from collections import deque
from collections.abc import Container, Sequence

from offsim.policy.evictions.base import Eviction, Key, PoolFacts

NEVER = float("inf")


class Belady(Eviction):
    """An oracle; no policy that takes in what it misses has more hits where all sizes are equal.

    Belady 1966, "A study of replacement algorithms for a virtual-storage computer". It looks at
    lookups, not at single accesses.
    """

    name = "belady"
    oracle = True

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._uses: dict[Key, deque[int]] = {}
        for lookup, keys in enumerate(facts.future):
            for key in keys:
                self._uses.setdefault(key, deque()).append(lookup)
        self._lookup = 0
        self._resident: dict[Key, None] = {}

    def admit(self, key: Key, nbytes: int) -> None:
        """One more to choose from."""
        self._resident[key] = None

    def victim(self, keep: Container[Key]) -> Key | None:
        """Who is needed again last, or never."""
        kept = [key for key in self._resident if key not in keep]
        if not kept:
            return None
        last = max(kept, key=self._next_use)
        del self._resident[last]
        return last

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """One lookup nearer."""
        self._lookup += 1

    def _next_use(self, key: Key) -> float:
        """The next lookup that asks for it; the present one does not, or it had to be kept."""
        uses = self._uses.get(key)  # none at all of what was prefetched in vain
        while uses and uses[0] < self._lookup:
            uses.popleft()
        return uses[0] if uses else NEVER
