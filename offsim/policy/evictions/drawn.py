"""At random."""

from collections.abc import Container
from random import Random

from offsim.policy.evictions.base import Eviction, Key, PoolFacts


class Drawn(Eviction):
    """Anyone leaves; the same seed draws the same."""

    name = "random"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._random = Random(facts.seed)
        self._resident: dict[Key, None] = {}

    def admit(self, key: Key, nbytes: int) -> None:
        """One more to draw from."""
        self._resident[key] = None

    def victim(self, keep: Container[Key]) -> Key | None:
        """Each with the same chance."""
        kept = [key for key in self._resident if key not in keep]
        if not kept:
            return None
        key = self._random.choice(kept)
        del self._resident[key]
        return key
