"""What `offsim.policy.decider.Decider` decides, compiled, for caches of slots that it covers.

Arguments, in all functions: `keys` as in `offsim.simulate.fast.keys`; an expert is named by its
key, layer * experts + expert.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.fast.keys import (
    BELADY,
    BRINGS,
    COUNT,
    KEY,
    LFU,
    LRU,
    MARK,
    PENDING,
    RESIDENT,
    SCORE,
    let_in,
    used,
)
from offsim.simulate.plan import NONE, Ids


class Asked(NamedTuple):
    """A trace as compiled code reads it.

    Attributes:
        experts: [tokens, layers, top_k] uint16.
        rows_to: [steps] where the tokens of each step end.
        next_use: [tokens, layers, top_k] for belady: the next lookup that asks for the same
            expert, as long as it is not of the same step; else empty.
        nbytes: [keys] bytes that are issued for an expert.
        candidates: [candidates] keys that a prefetcher names, in order of preference.
        candidates_to: [lookups] where those of each lookup end; empty without a prefetcher.
    """

    experts: npt.NDArray[np.uint16]
    rows_to: Ints
    next_use: Ids
    nbytes: Ints
    candidates: Ids
    candidates_to: Ints


class Decided(NamedTuple):
    """Decisions as arrays: columns of `offsim.simulate.plan.Plan`, and what the log needs.

    Attributes:
        key: [uses] of each distinct expert of each lookup, in router order.
        run: [uses] tokens that it serves, less one.
        load: see `Plan`.
        uses_to: see `Plan`.
        demands_to: see `Plan`.
        loads_to: see `Plan`.
        moved: [loads] key of what each brings.
        left: [loads] key of who leaves for it, or NONE.
        staged: [loads] whether it passes through without a slot.
        dropped: [loads] the unused prefetch whose expert leaves for it, or NONE.
    """

    key: Ids
    run: Ids
    load: Ids
    uses_to: Ids
    demands_to: Ids
    loads_to: Ids
    moved: Ids
    left: Ids
    staged: npt.NDArray[np.bool_]
    dropped: Ids


@compiled
def decide(
    asked: Asked,
    cache: int,
    keys: Ids,
    pools: int,
    budget: int,
    decided: Decided,
    pending: Ints,
) -> tuple[int, int]:
    """Decide all lookups of a trace, a prompt as one step.

    Args:
        asked: the trace.
        cache: one of CACHES.
        keys: fresh.
        pools: one, or one a layer.
        budget: bytes that may be issued ahead in a step.
        decided: filled.
        pending: [layers] how many experts are pending, at first 0.

    Returns:
        How many uses and loads there are.
    """
    layers = asked.experts.shape[1]
    total = len(keys) // KEY - pools
    experts = total // layers
    uses = loads = row = lookup = named = 0
    foresees = len(asked.candidates_to) > 0
    now = 0  # counts lookups and fetches: what is marked with it is kept
    for step in range(len(asked.rows_to)):
        end, budget_left = asked.rows_to[step], budget
        for layer in range(layers):
            pool = total + (layer if pools > 1 else 0)
            now += 1
            if pending[layer]:  # this layer has now asked for those of its own
                pending[layer] = 0
                for key in range(layer * experts, (layer + 1) * experts):
                    keys[key * KEY + PENDING] = 0
            first = uses
            uses = _distinct(
                asked, keys, cache, layer * experts, layer, row, end, decided, first, now
            )
            # Who is asked for never leaves, so that who is a hit does not depend on the order.
            alone = end - row == 1  # then the order of first uses is that of last uses
            for use in range(first, uses):
                key = decided.key[use]
                if not keys[key * KEY + RESIDENT]:
                    decided.load[use] = loads
                    _bring(asked, keys, pool, cache, decided, loads, key, now)
                    loads += 1
                    if alone and cache == LFU:
                        keys[key * KEY + SCORE] += 1
                    continue
                decided.load[use] = NONE
                if foresees:
                    decided.load[use], keys[key * KEY + BRINGS] = keys[key * KEY + BRINGS], NONE
                if alone and cache in (LRU, LFU):
                    used(keys, pool, cache, key)
            decided.uses_to[lookup], decided.demands_to[lookup] = uses, loads
            if not alone and cache in (LRU, LFU):
                _promote(asked, keys, pool, cache, layer * experts, layer, row, end)
            if foresees:
                now += 1
                last = asked.candidates_to[lookup]
                before = loads
                loads = _fetch(
                    asked, keys, pools, cache, budget_left, decided, named, last, loads, now
                )
                for load in range(before, loads):
                    budget_left -= asked.nbytes[decided.moved[load]]
                    pending[decided.moved[load] // experts] += 1
                named = last
            decided.loads_to[lookup] = loads
            lookup += 1
        row = end
    return uses, loads


@compiled
def _distinct(
    asked: Asked,
    keys: Ids,
    cache: int,
    base: int,
    layer: int,
    row: int,
    end: int,
    decided: Decided,
    uses: int,
    now: int,
) -> int:
    """Note and mark the distinct experts of a lookup, in router order; returns where they end."""
    for token in range(row, end):
        for slot in range(asked.experts.shape[2]):
            key = base + asked.experts[token, layer, slot]
            if cache == BELADY:
                keys[key * KEY + SCORE] = asked.next_use[token, layer, slot]
            if end - row > 1 and keys[key * KEY + MARK] == now:  # a token asks for none twice
                decided.run[keys[key * KEY + COUNT]] += 1
                continue
            keys[key * KEY + MARK], keys[key * KEY + COUNT] = now, uses
            decided.key[uses], decided.run[uses] = key, 0
            uses += 1
    return uses


@compiled
def _fetch(
    asked: Asked,
    keys: Ids,
    pools: int,
    cache: int,
    budget: int,
    decided: Decided,
    first: int,
    last: int,
    loads: int,
    now: int,
) -> int:
    """Issue what was named, as far as budget and room go; returns how many loads there are."""
    total = len(keys) // KEY - pools
    experts = total // asked.experts.shape[1]
    for nth in range(first, last):
        keys[asked.candidates[nth] * KEY + MARK] = now
    for nth in range(first, last):
        key = asked.candidates[nth]
        if keys[key * KEY + RESIDENT]:
            continue
        if asked.nbytes[key] > budget:
            break
        pool = total + (key // experts if pools > 1 else 0)
        if _bring(asked, keys, pool, cache, decided, loads, key, now):
            keys[key * KEY + PENDING], keys[key * KEY + BRINGS] = 1, loads
            budget -= asked.nbytes[key]
            loads += 1
    return loads


@compiled
def _bring(
    asked: Asked, keys: Ids, pool: int, cache: int, decided: Decided, load: int, key: int, now: int
) -> bool:
    """Note a load and who leaves for it; returns whether its expert found a slot."""
    kept, left = let_in(keys, pool, cache, key, now)
    decided.moved[load] = key
    decided.left[load], decided.staged[load] = left, not kept
    decided.dropped[load] = NONE
    if left != NONE:
        decided.dropped[load] = keys[left * KEY + BRINGS]
        keys[left * KEY + BRINGS] = NONE
    return kept


@compiled
def _promote(
    asked: Asked, keys: Ids, pool: int, cache: int, base: int, layer: int, row: int, end: int
) -> None:
    """A lookup of several tokens is over: recency follows last uses, by token, then by slot."""
    top_k = asked.experts.shape[2]
    for token in range(row, end):  # every use anew: the last one stays
        for slot in range(top_k):
            key = base + asked.experts[token, layer, slot]
            keys[key * KEY + COUNT] = token
    for token in range(row, end):
        for slot in range(top_k):
            key = base + asked.experts[token, layer, slot]
            if keys[key * KEY + COUNT] == token:
                used(keys, pool, cache, key)
