"""Least frequently used."""

from collections import Counter
from collections.abc import Sequence

from offsim.policy.evictions.base import Key, PoolFacts
from offsim.policy.evictions.scored import Scored


class Lfu(Scored):
    """Who was asked for in the fewest lookups leaves; counts outlive a stay in the cache."""

    name = "lfu"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._uses: Counter[Key] = Counter()

    def score(self, key: Key) -> float:
        """Lookups that asked for it."""
        return self._uses[key]

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """One more lookup for each."""
        super().used(keys, weights)
        self._uses.update(keys)
