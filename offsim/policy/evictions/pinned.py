"""Static pins from a profile."""

from collections.abc import Sequence

from offsim.policy.evictions.base import Key, PoolFacts
from offsim.policy.evictions.lru import Lru

SHARE = 0.5
"""Of the capacity, that the pinned experts may take."""


class Pinned(Lru):
    """The most popular experts of a profile never leave; the others are LRU.

    As many are pinned as fit into half of the capacity; they come when they are first asked for.
    """

    name = "pinned"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        count = facts.popularity
        self._waiting = sorted(count, key=lambda key: (count[key], key))  # most popular last
        self._room = SHARE * facts.capacity
        self._pinned: set[Key] = set()

    def admit(self, key: Key, nbytes: int) -> None:
        """Pinned, or as the youngest of the others."""
        while self._waiting and self._room >= nbytes:
            self._pinned.add(self._waiting.pop())
            self._room -= nbytes
        if key not in self._pinned:
            super().admit(key, nbytes)

    def may_leave(self, key: Key) -> bool:
        """All but the pinned ones."""
        return key in self._recency

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """The others are the youngest."""
        super().used([key for key in keys if key not in self._pinned], weights)
