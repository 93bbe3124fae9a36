"""S3-FIFO: three queues, and what is used once leaves early."""

from collections.abc import Container, Sequence

from offsim.policy.evictions.base import Eviction, Key, PoolFacts

SMALL_SHARE = 0.1
MOST_USES = 3


class S3Fifo(Eviction):
    """A small queue for newcomers, a main queue for who was used again, a list of who left.

    Yang et al. 2023, "FIFO queues are all you need for cache eviction", algorithm 1: the small
    queue has a tenth of the capacity; who was used more than once in it moves to the main queue,
    who leaves it is remembered, and comes into the main queue if asked for again; the main queue
    gives another round for each use, up to three.
    """

    name = "s3-fifo"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._small: dict[Key, int] = {}  # bytes, first to leave first
        self._main: dict[Key, int] = {}
        self._left: dict[Key, None] = {}
        self._uses: dict[Key, int] = {}

    def admit(self, key: Key, nbytes: int) -> None:
        """Into the small queue, or into the main one where it is remembered."""
        queue = self._main if key in self._left else self._small
        self._left.pop(key, None)
        queue[key] = nbytes
        self._uses[key] = -1  # the use that brought it does not count

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """One more use for each."""
        for key in keys:
            if key in self._uses:
                self._uses[key] = min(self._uses[key] + 1, MOST_USES)

    def victim(self, keep: Container[Key]) -> Key | None:
        """From the small queue while it is over its share, else from the main one."""
        full = sum(self._small.values()) >= SMALL_SHARE * self.facts.capacity
        first, second = (self._small, self._main) if full else (self._main, self._small)
        # The small queue may have moved all that it could give up into the main one.
        return self._from(first, keep) or self._from(second, keep) or self._from(self._main, keep)

    def _from(self, queue: dict[Key, int], keep: Container[Key]) -> Key | None:
        """The first of a queue that neither must stay nor has earned another round."""
        for _ in range(len(queue) * (MOST_USES + 1)):
            key = next((key for key in queue if key not in keep), None)
            if key is None:
                return None
            nbytes, uses = queue.pop(key), self._uses[key]
            if queue is self._small and uses > 1:
                self._main[key], self._uses[key] = nbytes, 0
            elif queue is self._main and uses > 0:
                self._main[key], self._uses[key] = nbytes, uses - 1
            else:
                self._forget(key, remember=queue is self._small)
                return key
        return None

    def _forget(self, key: Key, *, remember: bool) -> None:
        del self._uses[key]
        if remember:
            self._left[key] = None
            while len(self._left) > max(1, len(self._main)):
                del self._left[next(iter(self._left))]
