"""In which precision a missing expert comes: its own, or a coarser one where its weight is low."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup


class Low(BaseModel):
    """A second blob of every expert, for misses that weigh little, as in HOBBIT.

    Attributes:
        codec: name of its codec.
        bound: absolute error bound in the unit of the weights, in the stored dtype; 0 for `raw`.
        below: a miss comes as this blob if its weight in the lookup is below this share, above 0
            to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: str
    bound: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    below: float = Field(gt=0, le=1)

    def __str__(self) -> str:
        storage = f"{self.codec} {self.bound:g}" if self.bound else self.codec
        return f"{storage} below a weight of {self.below:g}"


class Precisions:
    """Who is on the device coarse, and which misses come so.

    The weight of an expert in a lookup is the largest that a token gives it, as a share of what
    that token gives its experts in all. Where a token gives nothing, or what is not a number, its
    experts count as heavy. A slot holds what came: a coarse expert serves lookups in which it
    weighs little, and is missing in all others, which overwrite it with its full blob.

    Args:
        below: a weight below this share is low.
        top_k: experts that a token takes.
    """

    def __init__(self, below: float, top_k: int) -> None:
        self._below, self._top_k = below, top_k
        self._coarse: set[Key] = set()

    def decide(self, lookup: Lookup, decision: Decision) -> Decision:
        """What a lookup brings coarse, and what it misses because it is there coarse; taken.

        Args:
            lookup: what was asked.
            decision: of the cache and the prefetcher, to which an expert that is there is a hit.
        """
        layer, heavy = decision.layer, self._heavy(lookup)
        again = {e for e in decision.hits if e in heavy and (layer, e) in self._coarse}
        if again:
            decision = _missed(lookup, decision, again)
        for left in decision.evicted:
            self._coarse.difference_update(left)
        loaded = [expert for expert in decision.misses if expert not in decision.on_host]
        coarse = tuple([expert for expert in loaded if expert not in heavy])
        self._coarse.update((layer, expert) for expert in coarse if expert not in decision.staged)
        for left in decision.displaced:
            self._coarse.difference_update(left)
        return replace(decision, coarse=coarse) if coarse else decision

    def _heavy(self, lookup: Lookup) -> set[int]:
        """The experts of a lookup whose weight is not low."""
        heavy: set[int] = set()
        for first in range(0, len(lookup.accesses), self._top_k):
            token = slice(first, first + self._top_k)
            weights = lookup.weights[token]
            total = sum(weights)
            for expert, weight in zip(lookup.accesses[token], weights, strict=True):
                if not (total > 0 and weight / total < self._below):
                    heavy.add(expert)
        return heavy


def _missed(lookup: Lookup, decision: Decision, again: set[int]) -> Decision:
    """The decision with some of its hits missed, each in place of itself."""
    evicted = dict(zip(decision.misses, decision.evicted, strict=True))
    evicted |= {expert: ((decision.layer, expert),) for expert in again}
    misses = tuple([expert for expert in dict.fromkeys(lookup.accesses) if expert in evicted])
    return replace(
        decision,
        hits=tuple([expert for expert in decision.hits if expert not in again]),
        misses=misses,
        evicted=tuple([evicted[expert] for expert in misses]),
    )
