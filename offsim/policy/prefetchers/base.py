"""What a prefetcher is: after each lookup it names the experts that come next, as it thinks.

A new one is a subclass in a file of its own and a line in `offsim.policy.prefetchers.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup


@dataclass(frozen=True)
class PrefetchFacts:
    """What a prefetcher may know beforehand.

    Attributes:
        layers: MoE layers.
        experts: that each of them has.
        top_k: experts a token and layer.
        distance: how many layers ahead it looks, at least 1.
        seed: of prefetchers that draw.
        profile: the lookups of an earlier run, in order.
        future: for each lookup to come, the distinct experts that it asks for; only an oracle
            looks at it.
        precision: that a noisy oracle has, above 0 to 1.
        recall: that it has, 0..1.
    """

    layers: int
    experts: int
    top_k: int
    distance: int = 1
    seed: int = 0
    profile: Sequence[Lookup] = ()
    future: Sequence[Sequence[Key]] = ()
    precision: float = 1.0
    recall: float = 1.0


class Prefetcher(ABC):
    """Names candidates for the layers from the next one to `distance` layers ahead.

    It is asked after every lookup, once and in order. What the device already holds, what finds
    room and how much is issued is for others to say.

    Args:
        facts: of the model and the run.

    Attributes:
        name: how users write it.
        oracle: whether it needs to know the future.
        profiled: whether it needs a profile.
        gated: whether it needs what the gates of the next layers choose (`Lookup.lookahead`).
    """

    name: ClassVar[str]
    oracle: ClassVar[bool] = False
    profiled: ClassVar[bool] = False
    gated: ClassVar[bool] = False

    def __init__(self, facts: PrefetchFacts) -> None:
        self.facts = facts

    @abstractmethod
    def after(self, lookup: Lookup) -> list[Key]:
        """Distinct experts in order of preference, those of nearer layers first."""

    def next_layers(self, layer: int) -> list[int]:
        """The layers ahead; after the last one of a step comes the first one of the next."""
        reach = range(layer + 1, layer + 1 + self.facts.distance)
        return [ahead % self.facts.layers for ahead in reach]
