"""What `offsim.policy.decider.Decider` decides, compiled, for caches of slots that it covers.

Arguments, in all functions: `keys` and `pools` as in `offsim.simulate.fast.keys`; an expert is
named by its key, layer * experts + expert.
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
        candidates: [candidates] keys that a prefetcher names, in order of preference.
        candidates_to: [lookups] where those of each lookup end; empty without a prefetcher.
    """

    experts: npt.NDArray[np.uint16]
    rows_to: Ints
    next_use: Ints
    candidates: Ids
    candidates_to: Ints


class Decided(NamedTuple):
    """Decisions as arrays: columns of `offsim.simulate.plan.Plan`, and what the log needs.

    Attributes:
        key: [uses] of each distinct expert of each lookup, in router order.
        tokens: [uses] that it serves.
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
    tokens: Ids
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
    keys: Ints,
    pools: Ints,
    nbytes: Ints,
    budget: int,
    decided: Decided,
    pending: Ints,
) -> tuple[int, int]:
    """Decide all lookups of a trace, a prompt as one step.

    Args:
        asked: the trace.
        cache: one of CACHES.
        keys: fresh.
        pools: one, or one a layer, fresh.
        nbytes: [keys] bytes that are issued for an expert.
        budget: bytes that may be issued ahead in a step.
        decided: filled.
        pending: [layers] how many experts are pending, at first 0.

    Returns:
        How many uses and loads there are.
    """
    layers, top_k = asked.experts.shape[1], asked.experts.shape[2]
    experts = len(keys) // layers
    uses = loads = row = lookup = named = 0
    now = 0  # counts lookups and fetches: what is marked with it is kept
    for step in range(len(asked.rows_to)):
        end, budget_left = asked.rows_to[step], budget
        for layer in range(layers):
            pool = layer if len(pools) > 1 else 0
            now += 1
            first_use, first_load = uses, loads
            for token in range(row, end):
                for slot in range(top_k):
                    key = layer * experts + asked.experts[token, layer, slot]
                    if keys[key, MARK] != now:
                        keys[key, MARK], keys[key, COUNT] = now, uses
                        decided.key[uses], decided.tokens[uses] = key, 0
                        uses += 1
                    decided.tokens[keys[key, COUNT]] += 1
                    if cache == BELADY:
                        keys[key, SCORE] = asked.next_use[token, layer, slot]
            if pending[layer]:  # this layer has now asked for those of its own
                pending[layer] = 0
                for key in range(layer * experts, (layer + 1) * experts):
                    keys[key, PENDING] = 0
            for use in range(first_use, uses):
                key = decided.key[use]
                if keys[key, RESIDENT]:
                    decided.load[use] = keys[key, BRINGS]
                    keys[key, BRINGS] = NONE
                else:
                    decided.load[use] = -2 - loads  # a miss; who leaves is decided below
                    loads += 1
            for use in range(first_use, uses):
                if decided.load[use] < NONE:
                    load = -2 - decided.load[use]
                    decided.load[use] = load
                    _bring(keys, pools, pool, cache, decided, load, decided.key[use], now)
            decided.uses_to[lookup], decided.demands_to[lookup] = uses, loads
            _promote(
                asked, keys, pools, pool, cache, layer, row, end, decided, first_use, uses, now
            )
            if len(asked.candidates_to):
                now += 1
                last = asked.candidates_to[lookup]
                for nth in range(named, last):
                    keys[asked.candidates[nth], MARK] = now
                for nth in range(named, last):
                    key = asked.candidates[nth]
                    if keys[key, RESIDENT]:
                        continue
                    if nbytes[key] > budget_left:
                        break
                    place = key // experts if len(pools) > 1 else 0
                    if _bring(keys, pools, place, cache, decided, loads, key, now):
                        keys[key, PENDING], keys[key, BRINGS] = 1, loads
                        pending[key // experts] += 1
                        budget_left -= nbytes[key]
                        loads += 1
                named = last
            decided.loads_to[lookup] = loads
            lookup += 1
        row = end
    return uses, loads


@compiled
def _bring(
    keys: Ints, pools: Ints, pool: int, cache: int, decided: Decided, load: int, key: int, now: int
) -> bool:
    """Note a load and who leaves for it; returns whether its expert found a slot."""
    kept, left = let_in(keys, pools, pool, cache, key, now)
    decided.moved[load], decided.left[load], decided.staged[load] = key, left, not kept
    decided.dropped[load] = NONE
    if left != NONE:
        decided.dropped[load] = keys[left, BRINGS]
        keys[left, BRINGS] = NONE
    return kept


@compiled
def _promote(
    asked: Asked,
    keys: Ints,
    pools: Ints,
    pool: int,
    cache: int,
    layer: int,
    row: int,
    end: int,
    decided: Decided,
    first_use: int,
    uses: int,
    now: int,
) -> None:
    """The lookup is over: recency follows the last use of each, by token, then by slot."""
    if end - row == 1:
        for use in range(first_use, uses):
            used(keys, pools, pool, cache, decided.key[use])
        return
    experts = len(keys) // asked.experts.shape[1]
    for token in range(row, end):  # every use anew: the last one stays
        for slot in range(asked.experts.shape[2]):
            keys[layer * experts + asked.experts[token, layer, slot], COUNT] = token
    for token in range(row, end):
        for slot in range(asked.experts.shape[2]):
            key = layer * experts + asked.experts[token, layer, slot]
            if keys[key, COUNT] == token:
                used(keys, pools, pool, cache, key)
