"""An expert cache of two tiers: decoded experts, and blobs that are decoded at each use."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace

from offsim.policy.cache import Decision, ExpertCache
from offsim.policy.evictions import Key
from offsim.policy.pool import PooledCache


class TieredCache(ExpertCache):
    """Two caches side by side, of which each has its own room and its own eviction policy.

    Both are asked for every lookup, hear of every use, and keep what the other lets go of. An
    expert is a hit where one of them has it. One that is there as a blob alone is decoded for this
    use and comes into the tier of decoded experts; one that is missing comes into both; one that
    is there decoded alone does not come into the tier of blobs, since no blob is at hand.

    A prefetch comes into the tier of blobs. It is decoded when it comes, for its first use, and
    into the tier of decoded experts with that use.

    Args:
        decoded: the tier of decoded experts.
        blobs: the tier of blobs.
    """

    def __init__(self, decoded: PooledCache, blobs: PooledCache) -> None:
        self._decoded, self._blobs = decoded, blobs

    def lookup(
        self,
        layer: int,
        accesses: Sequence[int],
        weights: Sequence[float] | None = None,
        outside: Container[int] = (),
    ) -> Decision:
        """Hits are those of both tiers together; the rest is of the tier of blobs."""
        wanted = dict.fromkeys(accesses)
        ready = {expert for expert in wanted if (layer, expert) in self._decoded}
        blobs = {expert for expert in wanted if (layer, expert) in self._blobs}
        on_host = {expert for expert in wanted if expert in outside} - ready - blobs
        decoded = self._decoded.lookup(layer, accesses, weights, on_host)
        found = self._blobs.lookup(layer, accesses, weights, ready | on_host)
        left = dict(zip(found.misses, found.evicted, strict=True))
        misses = tuple([expert for expert in found.misses if expert not in ready])
        return replace(
            found,
            hits=tuple([expert for expert in wanted if expert in ready or expert in blobs]),
            misses=misses,
            evicted=tuple([left[expert] for expert in misses]),
            on_host=tuple([expert for expert in misses if expert in on_host]),
            decoded=decoded,
        )

    def fetch(
        self, candidates: Iterable[Key], nbytes: Callable[[Key], int], budget: int
    ) -> tuple[list[Key], list[tuple[Key, ...]], int]:
        """Into the tier of blobs; those that are there decoded are passed over too."""
        asked = [key for key in candidates if key not in self._decoded]
        return self._blobs.fetch(asked, nbytes, budget)
