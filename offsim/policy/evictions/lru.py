"""Least recently used."""

from collections.abc import Container, Sequence

from offsim.policy.evictions.base import Eviction, Key, PoolFacts


class Lru(Eviction):
    """Who was not used for longest leaves."""

    name = "lru"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._recency: dict[Key, None] = {}  # oldest first

    def admit(self, key: Key, nbytes: int) -> None:
        """As the youngest."""
        self._recency[key] = None

    def victim(self, keep: Container[Key]) -> Key | None:
        """The oldest."""
        for key in self._recency:
            if key not in keep:
                del self._recency[key]
                return key
        return None

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """They are the youngest, the last used last."""
        for key in keys:
            if key in self._recency:
                del self._recency[key]
                self._recency[key] = None
