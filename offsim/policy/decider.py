"""Everything that is decided at one layer and step: who stays, who comes, who is loaded ahead."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product

from offsim.errors import InputError
from offsim.policy.cache import Decision, ExpertCache
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup, future_of, lookups_of, popularity_of
from offsim.policy.policy import Policy
from offsim.policy.precision import Precisions
from offsim.policy.prefetchers import Prefetcher, PrefetchFacts
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.policy.replay import cache_for, pools_for
from offsim.policy.tiers import HostMemory, Sizes
from offsim.trace import Trace


class Decider:
    """A cache and the prefetcher that fills it, asked once for each lookup.

    Args:
        cache: fresh.
        prefetcher: fresh; None where only what is missed is loaded.
        budget: bytes that may be issued ahead in a step; None for as many as it likes. It starts
            anew with layer 0: what the last layer issues for the next step counts in its own.
        nbytes: bytes that are issued for an expert.
        host: host memory with a disk beneath it; None where it holds everything.
        host_tokens: the host computes missing experts that serve at most so many tokens.
        precisions: fresh; None where every expert comes in the same precision.

    Attributes:
        host: as given.
        left: whose blobs left host memory at the last decision; they may have come back in it.
    """

    def __init__(
        self,
        cache: ExpertCache,
        prefetcher: Prefetcher | None,
        budget: int | None,
        nbytes: Callable[[Key], int],
        host: HostMemory | None = None,
        host_tokens: int = 0,
        precisions: Precisions | None = None,
    ) -> None:
        self._cache, self._prefetcher, self._nbytes = cache, prefetcher, nbytes
        self._host_tokens, self._precisions = host_tokens, precisions
        self.host = host
        self.left: list[Key] = []
        self._budget = self._left = sys.maxsize if budget is None else budget

    def decide(self, lookup: Lookup) -> Decision:
        """Ask the cache, then let it fetch what the prefetcher names; already taken."""
        outside: set[int] = set()
        if self._host_tokens:
            tokens = Counter(lookup.accesses)
            outside = {expert for expert, n in tokens.items() if n <= self._host_tokens}
        decision = self._cache.lookup(lookup.layer, lookup.accesses, lookup.weights, outside)
        if self._prefetcher is not None:
            decision = self._fetched(self._prefetcher, lookup, decision)
        if self._precisions is not None:
            decision = self._precisions.decide(lookup, decision)
        if self.host is None:
            return decision
        keys = [*((lookup.layer, expert) for expert in decision.misses), *decision.fetched]
        from_disk, self.left = [], []
        for key in keys:
            if self.host.load(key):
                from_disk.append(key)
                self.left += self.host.left
        return replace(decision, from_disk=tuple(from_disk))

    def _fetched(self, prefetcher: Prefetcher, lookup: Lookup, decision: Decision) -> Decision:
        """The decision with what is fetched after its lookup."""
        if lookup.layer == 0:
            self._left = self._budget
        candidates = prefetcher.after(lookup)
        fetched, left, self._left = self._cache.fetch(candidates, self._nbytes, self._left)
        if not fetched:
            return decision
        return replace(decision, fetched=tuple(fetched), displaced=tuple(left))


def decider_for(
    policy: Policy,
    trace: Trace,
    nbytes: Callable[[Key], int],
    profile: Trace | None = None,
    sizes: Sizes | None = None,
) -> Decider:
    """A fresh decider of a policy that will be asked what a trace asks.

    Args:
        policy: cache and prefetcher.
        trace: what oracles look into.
        nbytes: bytes that are issued for an expert.
        profile: an earlier trace: whose popular experts are pinned, and what prefetchers learn
            from.
        sizes: of experts in host memory and on the device; needed where one of the two counts
            in bytes.

    Raises:
        InputError: no cache or prefetcher has this name, one needs a profile or the profile is of
            another shape, or the trace does not have what the gates choose so far ahead.
        ValueError: sizes are needed and not given.
    """
    prefetcher = prefetcher_for(policy, trace, profile)
    cache = cache_for(policy, trace, profile, sizes)
    host = _host_for(policy, (trace.layers, trace.info.experts_per_layer), sizes)
    return Decider(
        cache,
        prefetcher,
        policy.prefetch_bytes,
        nbytes,
        host,
        policy.host_tokens,
        _precisions_for(policy, trace.top_k),
    )


def prefetcher_for(policy: Policy, trace: Trace, profile: Trace | None) -> Prefetcher | None:
    """A fresh prefetcher of a policy that will be asked after every lookup of a trace, or None.

    Raises:
        InputError: as for `decider_for`.
    """
    kind = prefetcher_named(policy.prefetch)
    if kind is None:
        return None
    reach = 0 if trace.lookahead is None else trace.lookahead.shape[2]
    if kind.gated and reach < policy.distance:
        raise InputError(
            f"prefetcher {kind.name} looks {policy.distance} layers ahead and the trace has what "
            f"the gates choose {reach} ahead; record one with --lookahead {policy.distance}"
        )
    shape = (trace.layers, trace.info.experts_per_layer, trace.top_k)
    facts = _facts(policy, kind, shape, profile)
    if kind.oracle:
        facts = replace(facts, future=future_of(trace))
    return kind(facts)


def live_decider(
    policy: Policy,
    shape: tuple[int, int, int],
    nbytes: Callable[[Key], int],
    profile: Trace | None = None,
    sizes: Sizes | None = None,
) -> Decider:
    """A fresh decider of a live run, which has no trace to look into.

    Args:
        policy: cache and prefetcher.
        shape: MoE layers, experts that each has, and experts a token takes in each.
        nbytes: bytes that are issued for an expert.
        profile: as for `decider_for`.
        sizes: likewise.

    Raises:
        InputError: no cache or prefetcher has this name, one is an oracle or needs a profile, or
            the profile is of another shape.
        ValueError: sizes are needed and not given.
    """
    kind = prefetcher_named(policy.prefetch)
    known = popularity_of(profile) if profile is not None else None
    cache = pools_for(policy, shape[0], known, None, sizes)
    prefetcher = None
    if kind is not None:
        if kind.oracle:
            raise InputError(
                f"prefetcher {kind.name} looks into the future: it needs a trace, not a live run"
            )
        prefetcher = kind(_facts(policy, kind, shape, profile))
    return Decider(
        cache,
        prefetcher,
        policy.prefetch_bytes,
        nbytes,
        _host_for(policy, shape[:2], sizes),
        policy.host_tokens,
        _precisions_for(policy, shape[2]),
    )


def _host_for(policy: Policy, shape: tuple[int, int], sizes: Sizes | None) -> HostMemory | None:
    """Fresh, of so many layers and experts a layer; None where it holds everything."""
    if policy.host_bytes is None:
        return None
    if sizes is None:
        raise ValueError("host memory counts in bytes: give the sizes of experts")
    keys = product(range(shape[0]), range(shape[1]))
    return HostMemory(policy.host_bytes, keys, sizes.blob)


def _precisions_for(policy: Policy, top_k: int) -> Precisions | None:
    """Fresh, of a policy that loads misses of low weight coarse, or None."""
    return None if policy.low is None else Precisions(policy.low.below, top_k)


def _facts(
    policy: Policy, kind: type[Prefetcher], shape: tuple[int, int, int], profile: Trace | None
) -> PrefetchFacts:
    """What a prefetcher may know, but for the future."""
    if profile is None and kind.profiled:
        raise InputError(f"prefetcher {kind.name} needs a profile: a trace that it learns from")
    if profile is not None:
        own = (profile.layers, profile.info.experts_per_layer, profile.top_k)
        if own != shape:
            raise InputError(
                f"the profile has {own[0]} layers of {own[1]} experts, top-{own[2]}, the run "
                f"{shape[0]} of {shape[1]}, top-{shape[2]}; give one of the same model"
            )
    return PrefetchFacts(
        *shape,
        distance=policy.distance,
        seed=policy.seed,
        profile=list(lookups_of(profile)) if profile is not None else (),
        precision=policy.precision,
        recall=policy.recall,
    )
