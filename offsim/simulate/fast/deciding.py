"""What `offsim.policy.decider.Decider` decides, compiled, for caches of slots that it covers.

Arguments, in all functions: `keys` as in `offsim.simulate.fast.keys`; an expert is named by its
key, layer * experts + expert.
"""

import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import SURE, compiled
from offsim.simulate.fast.keys import (
    BELADY,
    BRINGS,
    COUNT,
    KEY,
    LAYER,
    LFU,
    LRU,
    RESIDENT,
    SAFE,
    SCORE,
    append,
    leave,
    make_room,
    unlink,
    used,
)
from offsim.simulate.plan import NONE, Ids

UNLIMITED = sys.maxsize
"""Bytes, as a budget that never ends."""


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
        drops_to: see `Plan`.
        drop: [drops] the unused prefetches whose experts leave, and one place to spare.
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
    drops_to: Ids
    drop: Ids


@compiled
def decide(
    asked: Asked, cache: int, keys: Ids, pools: int, budget: int, decided: Decided
) -> tuple[int, int]:
    """Decide all lookups of a trace, a prompt as one step.

    Args:
        asked: the trace.
        cache: one of CACHES.
        keys: fresh.
        pools: one, or one a layer.
        budget: bytes that may be issued ahead in a step.
        decided: filled.

    Returns:
        How many uses and loads there are.
    """
    layers = asked.experts.shape[1]
    total = len(keys) // KEY - pools
    experts = total // layers
    uses = loads = row = lookup = named = 0
    foresees = len(asked.candidates_to) > 0
    for step in range(len(asked.rows_to)):
        end, budget_left = asked.rows_to[step], budget
        for layer in range(layers):
            pool = total + (layer if pools > 1 else 0) & SURE
            now = 2 * lookup  # and one later what is fetched ahead
            base = layer * experts
            if cache == LRU and end - row == 1:
                uses, loads = _ask_in_turn(
                    asked, keys, pool, base, row, layer, decided, uses, loads, now, foresees
                )
            else:
                uses, loads = _ask(
                    asked, keys, pool, cache, base, row, end, layer, decided, uses, loads, now
                )
            decided.uses_to[lookup], decided.demands_to[lookup] = uses, loads
            if foresees:
                last = asked.candidates_to[lookup]
                before = loads
                loads = _fetch(
                    asked,
                    keys,
                    pools,
                    cache,
                    budget_left,
                    decided,
                    named,
                    last,
                    loads,
                    lookup,
                    layer,
                )
                if budget != UNLIMITED:
                    for load in range(before, loads):
                        budget_left -= asked.nbytes[decided.moved[load]]
                named = last
            decided.loads_to[lookup] = loads
            lookup += 1
        row = end
    return uses, loads


@compiled
def _ask_in_turn(
    asked: Asked,
    keys: Ids,
    pool: int,
    base: int,
    row: int,
    layer: int,
    decided: Decided,
    uses: int,
    loads: int,
    now: int,
    foresees: bool,
) -> tuple[int, int]:
    """A lookup of one token in a cache that evicts the least recent; returns the ends.

    The ring is in order of use. So everyone goes to its end in turn, present or not, and who is
    then too many leaves from its beginning. No branch depends on who is present: a processor
    cannot guess that.
    """
    first = loads
    for slot in range(asked.experts.shape[2]):
        key = base + asked.experts[row, layer, slot] & SURE
        at = key * KEY & SURE
        absent = 1 - keys[at + RESIDENT]
        decided.key[uses], decided.run[uses] = key, 0
        # The load that brings it: NONE, or what is on its way, or else the next one.
        decided.load[uses] = keys[at + BRINGS] + absent * (loads - NONE)
        decided.moved[loads] = key
        loads += absent
        uses += 1
        keys[at + BRINGS], keys[at + RESIDENT], keys[at + SAFE] = NONE, 1, now
        unlink(keys, key)
        append(keys, pool, key)
    for load in range(first, loads):
        kept, left = make_room(keys, pool, LRU, now)
        if foresees:
            _note(keys, decided, load, kept, left)
        else:
            decided.left[load], decided.staged[load], decided.drops_to[load] = left, not kept, 0
        if not kept:
            leave(keys, decided.moved[load])
    return uses, loads


@compiled
def _ask(
    asked: Asked,
    keys: Ids,
    pool: int,
    cache: int,
    base: int,
    row: int,
    end: int,
    layer: int,
    decided: Decided,
    first: int,
    loads: int,
    now: int,
) -> tuple[int, int]:
    """A lookup of any cache; returns where its uses and loads end."""
    uses = _distinct(asked, keys, cache, base, layer, row, end, decided, first, now)
    # Who is asked for never leaves, so that who is a hit does not depend on the order.
    alone = end - row == 1  # then the order of first uses is that of last uses
    for use in range(first, uses):
        key = decided.key[use]
        if not keys[key * KEY + RESIDENT]:
            decided.load[use] = loads
            _bring(keys, pool, cache, decided, loads, key, now)
            loads += 1
            if alone and cache == LFU:
                keys[key * KEY + SCORE] += 1
            continue
        decided.load[use], keys[key * KEY + BRINGS] = keys[key * KEY + BRINGS], NONE
        if alone and cache == LFU:
            used(keys, pool, cache, key)
    if not alone and cache in (LRU, LFU):
        _promote(asked, keys, pool, cache, base, layer, row, end)
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
            if end - row > 1 and keys[key * KEY + SAFE] == now:  # a token asks for none twice
                decided.run[keys[key * KEY + COUNT]] += 1
                continue
            keys[key * KEY + SAFE], keys[key * KEY + COUNT] = now, uses
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
    lookup: int,
    layer: int,
) -> int:
    """Issue what was named, as far as budget and room go; returns how many loads there are."""
    layers = asked.experts.shape[1]
    total = len(keys) // KEY - pools
    now = 2 * lookup + 1
    for nth in range(first, last):
        at = (asked.candidates[nth] & SURE) * KEY + SAFE
        keys[at] = max(keys[at], now)
    for nth in range(first, last):
        key = asked.candidates[nth] & SURE
        if keys[key * KEY + RESIDENT]:
            continue
        if asked.nbytes[key] > budget:
            break
        target = keys[key * KEY + LAYER]
        if _bring(keys, total + (target if pools > 1 else 0), cache, decided, loads, key, now):
            ahead = target - layer  # lookups until its layer asks
            ahead += layers if ahead <= 0 else 0
            keys[key * KEY + SAFE], keys[key * KEY + BRINGS] = 2 * (lookup + ahead) - 1, loads
            budget -= asked.nbytes[key]
            loads += 1
    return loads


@compiled
def _bring(
    keys: Ids, pool: int, cache: int, decided: Decided, load: int, key: int, now: int
) -> bool:
    """Note a load and who leaves for it; returns whether its expert found a slot."""
    kept, left = make_room(keys, pool, cache, now)
    if kept:
        keys[key * KEY + RESIDENT] = 1
        append(keys, pool, key)
    decided.moved[load] = key
    _note(keys, decided, load, kept, left)
    return kept


@compiled
def _note(keys: Ids, decided: Decided, load: int, kept: bool, left: int) -> None:
    """Note who leaves for a load."""
    drops = decided.drops_to[load - 1] & SURE if load else 0
    decided.left[load], decided.staged[load] = left, not kept
    if left != NONE:
        decided.drop[drops] = keys[left * KEY + BRINGS]
        drops += decided.drop[drops] != NONE
        keys[left * KEY + BRINGS] = NONE
    decided.drops_to[load] = drops


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
