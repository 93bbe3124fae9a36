"""What an eviction policy is: who of a pool leaves when there is no room.

A new one is a subclass in a file of its own and a line in `offsim.policy.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Key = tuple[int, int]
"""A layer and one of its experts."""


@dataclass(frozen=True)
class PoolFacts:
    """What a policy may know of its pool beforehand.

    Attributes:
        capacity: bytes.
        seed: of policies that draw.
        popularity: how often each expert was asked for in a profile.
        future: for each lookup of the pool to come, the distinct experts that it asks for; only
            an oracle looks at it.
    """

    capacity: int
    seed: int = 0
    popularity: Mapping[Key, float] = field(default_factory=dict)
    future: Sequence[Sequence[Key]] = ()


class Eviction(ABC):
    """The order in which the experts of one pool leave.

    Args:
        facts: of the pool.

    Attributes:
        name: how users write it.
        oracle: whether it needs to know the future.
    """

    name: ClassVar[str]
    oracle: ClassVar[bool] = False

    def __init__(self, facts: PoolFacts) -> None:
        self.facts = facts

    @abstractmethod
    def admit(self, key: Key, nbytes: int) -> None:
        """An expert that was not resident is now: in a lookup that missed it, or prefetched."""

    @abstractmethod
    def victim(self, keep: Container[Key]) -> Key | None:
        """Who leaves next; it is gone for this policy. None where all must be kept.

        Args:
            keep: experts of the present lookup or prefetch, and those that were prefetched and not
                asked for yet: they never leave.
        """

    def may_leave(self, key: Key) -> bool:
        """Whether a resident expert leaves at all, sooner or later."""
        return True

    def used(  # noqa: B027  # what many have no use for
        self, keys: Sequence[Key], weights: Sequence[float]
    ) -> None:
        """A lookup is over, evictions and admissions included.

        Args:
            keys: the experts that it asked for, in the order of their last use; those that were
                staged too.
            weights: [keys] what the router gave each, summed over the tokens of the lookup.
        """
