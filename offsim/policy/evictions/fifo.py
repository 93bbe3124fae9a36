"""First in, first out."""

from collections.abc import Container

from offsim.policy.evictions.base import Eviction, Key, PoolFacts


class Fifo(Eviction):
    """Who came first leaves, used or not."""

    name = "fifo"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._arrived: dict[Key, None] = {}

    def admit(self, key: Key, nbytes: int) -> None:
        """At the end of the queue."""
        self._arrived[key] = None

    def victim(self, keep: Container[Key]) -> Key | None:
        """The first of the queue."""
        for key in self._arrived:
            if key not in keep:
                del self._arrived[key]
                return key
        return None
