"""The bounds: who sees the future, clearly or through noise."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.prefetchers.base import Prefetcher, PrefetchFacts


class Oracle(Prefetcher):
    """Exactly what the next layers will ask for, in router order, those of the next step too."""

    name = "oracle"
    oracle = True

    def __init__(self, facts: PrefetchFacts) -> None:
        super().__init__(facts)
        self._next = 0

    def after(self, lookup: Lookup) -> list[Key]:
        """The next lookups, as many as the distance."""
        self._next += 1
        ahead = self.facts.future[self._next : self._next + self.facts.distance]
        return list(dict.fromkeys(key for keys in ahead for key in keys))


class NoisyOracle(Oracle):
    """An oracle of a given recall r and precision p, to see what a guess of that worth would do.

    Of what a lookup will ask for, each expert is kept with the chance r. To k that are kept come
    k (1 - p) / p others of the layer in expectation: the whole part of that number, and one more
    with the chance of the rest, drawn evenly among those that the lookup will not ask for, and no
    more than there are of them. The order is drawn too. What is foreseen of a lookup is the same
    from every distance.
    """

    name = "noisy-oracle"

    def __init__(self, facts: PrefetchFacts) -> None:
        random = Random(facts.seed)
        seen = [_noisy(keys, facts, random) for keys in facts.future]
        super().__init__(replace(facts, future=seen))


def _noisy(keys: Sequence[Key], facts: PrefetchFacts, random: Random) -> list[Key]:
    """What is foreseen of the experts that one lookup asks for."""
    foreseen = [key for key in keys if random.random() < facts.recall]
    whole, rest = divmod(len(foreseen) * (1 - facts.precision) / facts.precision, 1)
    wrong = int(whole) + (random.random() < rest)
    asked, layer = set(keys), keys[0][0]
    others = [(layer, e) for e in range(facts.experts) if (layer, e) not in asked]
    foreseen += random.sample(others, min(wrong, len(others)))
    random.shuffle(foreseen)
    return foreseen
