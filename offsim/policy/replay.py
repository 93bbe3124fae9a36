"""A cache replayed over a trace without time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offsim.policy.cache import ExpertCache
from offsim.policy.evictions import Key
from offsim.policy.lookup import future_of, lookups_of, popularity_of
from offsim.policy.policy import Policy
from offsim.policy.registry import cache_of, eviction_named
from offsim.policy.tiered import TieredCache
from offsim.policy.tiers import Sizes
from offsim.trace import DECODE, Trace


def cache_for(
    policy: Policy, trace: Trace, profile: Trace | None = None, sizes: Sizes | None = None
) -> ExpertCache:
    """A fresh cache of a policy that will be asked what a trace asks.

    Args:
        policy: which eviction policy, slots and scope.
        trace: what an oracle looks into.
        profile: whose popular experts are pinned.
        sizes: of experts; needed where the device keeps blobs, so that the bytes of the slots
            count and not their number.

    Raises:
        InputError: no policy has this name, or it needs a profile.
        ValueError: sizes are needed and not given.
    """
    known = popularity_of(profile) if profile is not None else None
    future = future_of(trace) if eviction_named(policy.cache).oracle else None
    return pools_for(policy, trace.layers, known, future, sizes)


def pools_for(
    policy: Policy,
    layers: int,
    popularity: Mapping[Key, float] | None,
    future: Sequence[Sequence[Key]] | None,
    sizes: Sizes | None,
) -> ExpertCache:
    """A fresh cache of a policy over so many layers; it counts slots, or bytes of blobs.

    Args:
        policy: which eviction policy, slots and scope, and how the device keeps experts.
        layers: MoE layers.
        popularity: for policies that pin, see `cache_of`.
        future: for oracles, see `cache_of`.
        sizes: as for `cache_for`.

    Raises:
        InputError: as for `cache_of`.
        ValueError: sizes are needed and not given.
    """
    pools = policy.pools(layers)
    known = (policy.seed, popularity, future)
    if policy.keep == "decoded":
        return cache_of(policy.cache, pools, lambda _: 1, *known)
    if sizes is None:
        raise ValueError("compressed experts count in bytes: give the sizes of experts")
    decoded = [policy.decoded_slots(slots) for slots in pools]
    room = [(slots - kept) * sizes.decoded for slots, kept in zip(pools, decoded, strict=True)]
    blobs = cache_of(policy.cache, room, sizes.blob, *known)
    if policy.keep == "compressed":
        return blobs
    return TieredCache(cache_of(policy.cache, decoded, lambda _: 1, *known), blobs)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a cache made of a trace.

    Attributes:
        lookups: distinct experts asked for, over all steps and layers.
        hits: of them resident.
        lookups_decode: of decode steps alone.
        hits_decode: likewise.
        bytes_read: of what had to be loaded.
    """

    lookups: int
    hits: int
    lookups_decode: int
    hits_decode: int
    bytes_read: int

    @property
    def hit_rate(self) -> float:
        """Share of lookups, 0..1; nan without a lookup."""
        return self.hits / self.lookups if self.lookups else float("nan")

    @property
    def hit_rate_decode(self) -> float:
        """The same of decode steps."""
        return self.hits_decode / self.lookups_decode if self.lookups_decode else float("nan")


def replay(trace: Trace, cache: ExpertCache, layer_bytes: list[int]) -> Replayed:
    """Ask a cache everything that a trace asks.

    Args:
        trace: the router's decisions.
        cache: fresh.
        layer_bytes: [layers] bytes that are read for one expert.
    """
    lookups, hits, read = Counter[int](), Counter[int](), 0
    for lookup in lookups_of(trace):
        decision = cache.lookup(lookup.layer, lookup.accesses, lookup.weights)
        hits[lookup.phase] += len(decision.hits)
        lookups[lookup.phase] += len(decision.hits) + len(decision.misses)
        read += len(decision.misses) * layer_bytes[lookup.layer]
    return Replayed(lookups.total(), hits.total(), lookups[DECODE], hits[DECODE], read)
