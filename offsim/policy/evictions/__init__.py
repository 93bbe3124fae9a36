"""Who leaves a full pool: one policy a file."""

from offsim.policy.evictions.base import Eviction, Key, PoolFacts

__all__ = ["Eviction", "Key", "PoolFacts"]
