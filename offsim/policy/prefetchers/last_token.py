"""By the token before."""

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.prefetchers.base import Prefetcher, PrefetchFacts


class LastToken(Prefetcher):
    """What the last token of the step before took in each next layer, in router order."""

    name = "last-token"

    def __init__(self, facts: PrefetchFacts) -> None:
        super().__init__(facts)
        self._last: list[list[Key]] = [[] for _ in range(facts.layers)]

    def after(self, lookup: Lookup) -> list[Key]:
        """Nothing of a layer that was not asked yet."""
        last = lookup.accesses[-self.facts.top_k :]
        self._last[lookup.layer] = [(lookup.layer, expert) for expert in last]
        ahead = self.next_layers(lookup.layer)
        return list(dict.fromkeys(key for layer in ahead for key in self._last[layer]))
