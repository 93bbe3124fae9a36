"""By the popularity in a profile."""

from collections import Counter

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.prefetchers.base import Prefetcher, PrefetchFacts


class Popularity(Prefetcher):
    """The experts of each next layer that most lookups of a profile asked for, `top_k` of them.

    The most popular comes first, and of equals, the lower id. Who was never asked for is not named.
    """

    name = "popularity"
    profiled = True

    def __init__(self, facts: PrefetchFacts) -> None:
        super().__init__(facts)
        count = Counter(key for lookup in facts.profile for key in lookup.wanted())
        ranked: list[list[Key]] = [[] for _ in range(facts.layers)]
        for key in sorted(count, key=lambda key: (-count[key], key)):
            ranked[key[0]].append(key)
        self._popular = [keys[: facts.top_k] for keys in ranked]

    def after(self, lookup: Lookup) -> list[Key]:
        """The same after each lookup of a layer."""
        return self.after_layer(lookup.layer)

    def after_layer(self, layer: int) -> list[Key]:
        """Candidates after any lookup of a layer."""
        ahead = self.next_layers(layer)
        return list(dict.fromkeys(key for layer in ahead for key in self._popular[layer]))
