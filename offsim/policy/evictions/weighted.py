"""By the router's weights."""

import math
from collections.abc import Sequence

from offsim.policy.evictions.base import Key, PoolFacts
from offsim.policy.evictions.scored import Scored

HALF_LIFE = 64
"""Lookups of the pool after which a weight counts half."""
DECAY: float = 0.5 ** (1 / HALF_LIFE)


class Weighted(Scored):
    """Who has had the least of the router's weight lately leaves.

    The sum of an expert's weights decays with every lookup of the pool.
    """

    name = "weight"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._sums: dict[Key, tuple[float, int]] = {}  # at the lookup of its last use
        self._lookup = 0

    def score(self, key: Key) -> float:
        """The decayed sum."""
        total, since = self._sums.get(key, (0.0, self._lookup))
        return total * math.pow(DECAY, self._lookup - since)

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """Add what the router gave."""
        super().used(keys, weights)
        self._lookup += 1
        for key, weight in zip(keys, weights, strict=True):
            self._sums[key] = (self.score(key) + weight, self._lookup)
