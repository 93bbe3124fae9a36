"""Policies that give every resident expert a number and evict the least."""

from abc import abstractmethod
from collections.abc import Container, Sequence

from offsim.policy.evictions.base import Eviction, Key, PoolFacts


class Scored(Eviction):
    """Who has the lowest score leaves; of equals, who was used longest ago."""

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._resident: dict[Key, None] = {}  # least recently used first

    @abstractmethod
    def score(self, key: Key) -> float:
        """What keeps an expert in; never compared over time."""

    def admit(self, key: Key, nbytes: int) -> None:
        """As the youngest."""
        self._resident[key] = None

    def victim(self, keep: Container[Key]) -> Key | None:
        """The least score."""
        kept = [key for key in self._resident if key not in keep]
        if not kept:
            return None
        least = min(kept, key=self.score)  # the first of equals
        del self._resident[least]
        return least

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """They are the youngest."""
        for key in keys:
            if key in self._resident:
                del self._resident[key]
                self._resident[key] = None
