"""What prefetchers name at each lookup of a trace, as arrays; some of them compiled."""

import numpy as np
import numpy.typing as npt

from offsim.policy.decider import prefetcher_for
from offsim.policy.lookup import lookups_of
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.popularity import Popularity
from offsim.policy.prefetchers.transition import Transition
from offsim.simulate.clock import Ints
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.plan import Ids
from offsim.trace import Trace
from offsim.trace.format import NOWHERE

Experts = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int32]
Shares = npt.NDArray[np.float64]
NOTHING = np.empty(0, np.int32), np.empty(0, np.int64)


def foresees(policy: Policy, layers: int) -> bool:
    """Whether compiled code names the candidates in so many layers; else the classes do."""
    if policy.prefetch in {"last-token", "oracle"}:
        return policy.distance <= layers
    return policy.prefetch in {"none", "gate", "transition", "popularity"}


def candidates_of(
    trace: Trace, rows_to: Ints, policy: Policy, profile: Trace | None
) -> tuple[Ids, Ints]:
    """The candidates of all lookups, [candidates] keys, and where those of each lookup end.

    Args:
        trace: whose lookups.
        rows_to: [steps] where the tokens of each step end.
        policy: that names the prefetcher.
        profile: as for `offsim.policy.decider.decider_for`.

    Raises:
        InputError: as there.
    """
    prefetcher = prefetcher_for(policy, trace, profile)
    if prefetcher is None:
        return NOTHING
    lookups, experts = len(rows_to) * trace.layers, trace.info.experts_per_layer
    ends = np.zeros(lookups, np.int64)
    scratch = np.zeros((2, experts), np.int64)
    if not foresees(policy, trace.layers):
        named: list[int] = []
        for number, lookup in enumerate(lookups_of(trace)):
            named += [layer * experts + expert for layer, expert in prefetcher.after(lookup)]
            ends[number] = len(named)
        return np.array(named, np.int32), ends
    if policy.prefetch == "gate" and trace.lookahead is not None:
        reach = policy.distance
        room = _room(trace, rows_to) * reach
        found = np.empty(room, np.int32)
        count = gate(np.ascontiguousarray(trace.lookahead), rows_to, reach, found, ends, scratch)
        return found[:count], ends
    if policy.prefetch in {"last-token", "oracle"}:
        room = _room(trace, rows_to) * policy.distance
        found = np.empty(room, np.int32)
        ids = np.ascontiguousarray(trace.experts)
        kernel = last_token if policy.prefetch == "last-token" else oracle
        count = kernel(ids, rows_to, policy.distance, found, ends, scratch)
        return found[:count], ends
    if isinstance(prefetcher, Transition):
        found = np.empty(lookups * policy.distance * trace.top_k, np.int32)
        ids = np.ascontiguousarray(trace.experts)
        learned, shares = (prefetcher.both, prefetcher.tokens), np.zeros(experts)
        count = transition(ids, rows_to, *learned, found, ends, shares)
        return found[:count], ends
    assert isinstance(prefetcher, Popularity)
    after = [prefetcher.after_layer(layer) for layer in range(trace.layers)]
    each = [layer * experts + expert for keys in after for layer, expert in keys]
    counts = np.tile([len(keys) for keys in after], len(rows_to))
    return np.tile(np.array(each, np.int32), len(rows_to)), np.cumsum(counts, dtype=np.int64)


def _room(trace: Trace, rows_to: Ints) -> int:
    """At most so many distinct experts are asked for in all lookups."""
    tokens = np.diff(rows_to, prepend=0)
    most = np.minimum(tokens * trace.top_k, trace.info.experts_per_layer)
    return int(most.sum()) * trace.layers + trace.info.experts_per_layer * trace.layers


@compiled
def gate(ahead: Experts, rows_to: Ints, reach: int, found: Ids, ends: Ints, scratch: Ints) -> int:
    """As `offsim.policy.prefetchers.gate`; returns how many candidates there are.

    Args:
        ahead: [tokens, layers, distance, top_k] uint16.
        rows_to: [steps] where the tokens of each step end.
        reach: layers ahead.
        found: filled with keys.
        ends: [lookups] filled.
        scratch: [2, experts] zeros, and zeros again in the end.
    """
    layers, top_k, experts = ahead.shape[1], ahead.shape[3], scratch.shape[1]
    count = row = 0
    for step in range(len(rows_to)):
        end = rows_to[step]
        for layer in range(layers):
            for distance in range(min(reach, layers - 1 - layer)):
                first = count
                base = (layer + 1 + distance) * experts
                for token in range(row, end):
                    for slot in range(top_k):
                        expert = ahead[token, layer, distance, slot]
                        if expert == NOWHERE:
                            continue
                        if not scratch[0, expert]:
                            found[count] = base + expert
                            count += 1
                        if end - row > 1:
                            scratch[0, expert] += 1
                if end - row > 1:
                    _most_first(found, first, count, base, scratch)
            ends[step * layers + layer] = count
        row = end
    return count


@compiled
def _most_first(found: Ids, first: int, count: int, base: int, scratch: Ints) -> None:
    """Order what was found by falling counts; equals keep their order. Clears the counts."""
    for nth in range(first + 1, count):
        key = found[nth]
        many, place = scratch[0, key - base], nth
        while place > first and scratch[0, found[place - 1] - base] < many:
            found[place] = found[place - 1]
            place -= 1
        found[place] = key
    for nth in range(first, count):
        scratch[0, found[nth] - base] = 0


@compiled
def last_token(
    ids: Experts, rows_to: Ints, reach: int, found: Ids, ends: Ints, scratch: Ints
) -> int:
    """As `offsim.policy.prefetchers.last_token`; arguments as for `gate`, ids of the trace."""
    layers, top_k, experts = ids.shape[1], ids.shape[2], scratch.shape[1]
    count = 0
    for step in range(len(rows_to)):
        for layer in range(layers):
            for distance in range(1, reach + 1):
                target, before = layer + distance, step - 1
                if target >= layers:  # the next step's; asked last in this one
                    target, before = target - layers, step
                if before >= 0:
                    for slot in range(top_k):
                        expert = ids[rows_to[before] - 1, target, slot]
                        found[count] = target * experts + expert
                        count += 1
            ends[step * layers + layer] = count
    return count


@compiled
def oracle(ids: Experts, rows_to: Ints, reach: int, found: Ids, ends: Ints, scratch: Ints) -> int:
    """As `offsim.policy.prefetchers.oracle`; arguments as for `gate`, ids of the trace."""
    layers, top_k, experts = ids.shape[1], ids.shape[2], scratch.shape[1]
    count = lookup = 0
    stamp = 0
    for step in range(len(rows_to)):
        for layer in range(layers):
            for distance in range(1, reach + 1):
                target, of = layer + distance, step
                if target >= layers:
                    target, of = target - layers, step + 1
                if of >= len(rows_to):
                    continue
                stamp += 1
                for token in range(rows_to[of - 1] if of else 0, rows_to[of]):
                    for slot in range(top_k):
                        expert = ids[token, target, slot]
                        if scratch[1, expert] != stamp:
                            scratch[1, expert] = stamp
                            found[count] = target * experts + expert
                            count += 1
            ends[lookup] = count
            lookup += 1
    return count


@compiled
def transition(
    ids: Experts,
    rows_to: Ints,
    both: Counts,
    tokens: Counts,
    found: Ids,
    ends: Ints,
    shares: Shares,
) -> int:
    """As `offsim.policy.prefetchers.transition`; returns how many candidates there are.

    Args:
        ids: [tokens, layers, top_k] uint16.
        rows_to: [steps] where the tokens of each step end.
        both: as there, with what the profile taught; it learns on.
        tokens: likewise.
        found: filled with keys.
        ends: [lookups] filled.
        shares: [experts] scratch.
    """
    layers, top_k = ids.shape[1], ids.shape[2]
    reach, experts = both.shape[0], both.shape[2]
    count = row = 0
    for step in range(len(rows_to)):
        end = rows_to[step]
        for layer in range(layers):
            for index in range(min(reach, layer)):
                before = layer - 1 - index
                for token in range(row, end):
                    for slot in range(top_k):
                        one = ids[token, before, slot]
                        tokens[index, before, one] += 1
                        for other in range(top_k):
                            both[index, before, one, ids[token, layer, other]] += 1
            for index in range(min(reach, layers - 1 - layer)):
                shares[:] = 0.0
                for slot in range(top_k):
                    one = ids[end - 1, layer, slot]
                    seen = max(tokens[index, layer, one], 1)
                    for other in range(experts):
                        shares[other] += both[index, layer, one, other] / seen
                count = _best(shares, top_k, (layer + 1 + index) * experts, found, count)
            ends[step * layers + layer] = count
        row = end
    return count


@compiled
def _best(shares: Shares, most: int, base: int, found: Ids, count: int) -> int:
    """Note the largest positive shares, of equals the first; each becomes 0. Returns the count."""
    for _ in range(most):
        best = 0
        for expert in range(1, len(shares)):
            if shares[expert] > shares[best]:
                best = expert
        if shares[best] <= 0.0:
            break
        found[count] = base + best
        count += 1
        shares[best] = 0.0
    return count
