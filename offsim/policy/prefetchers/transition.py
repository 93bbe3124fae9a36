"""By what tokens took in this layer and then in the next ones."""

import numpy as np
import numpy.typing as npt

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.prefetchers.base import Prefetcher, PrefetchFacts


class Transition(Prefetcher):
    """The experts that tokens which took the same as the last one took in the next layers.

    It counts, for each pair of experts of a layer and of one ahead, the tokens that took both: in
    the profile, if there is one, and in the lookups so far. The score of a candidate is the sum,
    over the experts that the last token took in this layer, of the share of their tokens that took
    the candidate. The best `top_k` of each layer with a score come, of equals the lower id. It
    does not see past the last layer.

    Attributes:
        both: [distance, layers, experts, experts] int32 tokens that took one expert of a layer and
            another of the layer index + 1 further.
        tokens: [distance, layers, experts] int32 of these, those that took the first.
    """

    name = "transition"

    def __init__(self, facts: PrefetchFacts) -> None:
        super().__init__(facts)
        pairs = (facts.distance, facts.layers)
        self.both = np.zeros((*pairs, facts.experts, facts.experts), np.int32)
        self.tokens = np.zeros((*pairs, facts.experts), np.int32)
        self._step: list[npt.NDArray[np.intp]] = []  # [tokens, top_k] of the layers so far
        for lookup in facts.profile:
            self._learn(lookup)

    def after(self, lookup: Lookup) -> list[Key]:
        """Learn from the lookup, then look ahead from it."""
        self._learn(lookup)
        layer, last = lookup.layer, self._step[-1][-1]
        found: list[Key] = []
        for index in range(min(self.facts.distance, self.facts.layers - 1 - layer)):
            tokens = np.maximum(self.tokens[index, layer, last], 1)  # 0 of 0 is no share
            scores = (self.both[index, layer, last] / tokens[:, None]).sum(0)
            best = np.argsort(-scores, kind="stable")[: self.facts.top_k]
            found += [(layer + index + 1, int(e)) for e in best if scores[e] > 0]
        return found

    def _learn(self, lookup: Lookup) -> None:
        """Count a layer of a step with those before it."""
        if lookup.layer == 0:
            self._step = []
        taken = np.array(lookup.accesses, np.intp).reshape(-1, self.facts.top_k)
        for index, before in enumerate(self._step[: -self.facts.distance - 1 : -1]):
            at = (index, lookup.layer - 1 - index)
            np.add.at(self.both[at], (before[:, :, None], taken[:, None, :]), 1)
            np.add.at(self.tokens[at], before, 1)
        self._step.append(taken)
