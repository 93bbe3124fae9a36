"""By the gates of the next layers."""

from collections import Counter

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.prefetchers.base import Prefetcher


class Gate(Prefetcher):
    """What the next layers' gates choose for the hidden states of this one.

    Of a layer, who was chosen by most tokens comes first, and of equals, who comes first in router
    order. It does not see past the last layer: the next step has no hidden states yet.
    """

    name = "gate"
    gated = True

    def after(self, lookup: Lookup) -> list[Key]:
        """As far as the gates were asked and the distance goes."""
        found: list[Key] = []
        for ahead, chosen in enumerate(lookup.lookahead[: self.facts.distance], 1):
            layer = lookup.layer + ahead
            found += [(layer, expert) for expert, _ in Counter(chosen).most_common()]
        return found
