"""A trace seen as lookups, and a cache replayed over it without time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from offsim.policy.cache import ExpertCache
from offsim.policy.evictions import Key
from offsim.policy.policy import Policy
from offsim.policy.registry import eviction_named, slots_cache
from offsim.trace import DECODE, Trace, steps_of


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one layer asks for in one step.

    Attributes:
        layer: index of the MoE layer.
        phase: PREFILL or DECODE.
        accesses: ids by token, then by slot, repeats included.
        weights: [accesses] the router's weights.
    """

    layer: int
    phase: int
    accesses: list[int]
    weights: list[float]

    def wanted(self) -> list[Key]:
        """The distinct experts, in router order."""
        return [(self.layer, expert) for expert in dict.fromkeys(self.accesses)]


def lookups_of(trace: Trace) -> Iterator[Lookup]:
    """The lookups of a trace: step by step, layer by layer, a prompt as one step."""
    at = 0
    for step in steps_of(trace):
        weights = trace.weights[at : at + step.tokens]
        at += step.tokens
        rows = zip(_by_layer(step.experts), _by_layer(weights), strict=True)
        for layer, (accesses, given) in enumerate(rows):
            yield Lookup(layer, step.phase, accesses, given)


def _by_layer(array: npt.NDArray[Any]) -> list[list[Any]]:
    """From [tokens, layers, top_k] to a list a layer, by token and then by slot."""
    listed: list[list[Any]] = array.swapaxes(0, 1).reshape(array.shape[1], -1).tolist()
    return listed


def future_of(trace: Trace) -> list[list[Key]]:
    """The distinct experts of every lookup, in order: what an oracle knows."""
    return [lookup.wanted() for lookup in lookups_of(trace)]


def popularity_of(trace: Trace) -> Counter[Key]:
    """How many lookups asked for each expert."""
    return Counter(key for lookup in lookups_of(trace) for key in lookup.wanted())


def cache_for(policy: Policy, trace: Trace, profile: Trace | None = None) -> ExpertCache:
    """A fresh cache of a policy that will be asked what a trace asks.

    Args:
        policy: which eviction policy, slots and scope.
        trace: what an oracle looks into.
        profile: whose popular experts are pinned.

    Raises:
        InputError: no policy has this name, or it needs a profile.
    """
    return slots_cache(
        policy.cache,
        trace.layers,
        policy.slots,
        policy.scope,
        policy.seed,
        popularity_of(profile) if profile is not None else None,
        future_of(trace) if eviction_named(policy.cache).oracle else None,
    )


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
