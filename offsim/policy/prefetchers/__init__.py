"""Which experts to load before they are asked for: one policy a file."""

from offsim.policy.prefetchers.base import Prefetcher, PrefetchFacts

__all__ = ["PrefetchFacts", "Prefetcher"]
