"""What holds for every cache and prefetcher together, from the log of their decisions alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.decider import Decider, decider_for, live_decider
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup, future_of, lookups_of
from offsim.policy.policy import Policy
from offsim.policy.prefetchers import PrefetchFacts
from offsim.policy.prefetchers.oracle import Oracle
from offsim.policy.prefetchers.registry import PREFETCHERS
from offsim.policy.registry import EVICTIONS, cache_of
from offsim.policy.replay import cache_for
from offsim.policy.tiers import Sizes
from offsim.trace import DECODE, PREFILL, Trace
from tests.builders import TOY, foreseen, trace_of

LAYERS, EXPERTS, TOP_K, REACH = 3, 6, 2, 4
TAKEN = st.lists(st.integers(0, EXPERTS - 1), min_size=TOP_K, max_size=TOP_K, unique=True)
TOKENS = st.lists(st.lists(TAKEN, min_size=LAYERS, max_size=LAYERS), min_size=1, max_size=20)


def size(key: Key) -> int:
    """Bytes that are issued for an expert: not all the same."""
    return 3 + (5 * key[0] + key[1]) % 4


def requests_of(tokens: list[list[list[int]]], prompt: int, border: int) -> Trace:
    """Tokens as one request, or as two, each with a prompt, and with gates that are not wrong."""
    trace = trace_of(tokens, EXPERTS)
    count = len(tokens)
    second = np.arange(count) >= border
    position = np.where(second, np.arange(count) - border, np.arange(count)).astype(np.int32)
    phase = np.where(position < prompt, PREFILL, DECODE).astype(np.uint8)
    arrays = {"request": second.astype(np.int32), "position": position, "phase": phase}
    return foreseen(Trace(trace.info, **{**trace.arrays(), **arrays}), REACH)


TRACES = st.builds(requests_of, TOKENS, st.integers(0, 5), st.integers(1, 20))
POLICIES = st.builds(
    Policy,
    cache=st.sampled_from(sorted(EVICTIONS)),
    slots=st.integers(0, EXPERTS),
    scope=st.sampled_from(["layer", "global"]),
    prefetch=st.sampled_from(sorted(PREFETCHERS)),
    distance=st.integers(1, REACH),
    prefetch_bytes=st.none() | st.integers(0, 60),
    precision=st.sampled_from([0.3, 1.0]),
    recall=st.sampled_from([0.5, 1.0]),
)
CASES = given(trace=TRACES, profile=TRACES, policy=POLICIES)
MANY = settings(derandomize=True, max_examples=300, deadline=None)


def decided(decider: Decider, trace: Trace) -> list[tuple[Lookup, Decision]]:
    return [(lookup, decider.decide(lookup)) for lookup in lookups_of(trace)]


@MANY
@CASES
def test_a_log_accounts_for_every_expert(trace: Trace, profile: Trace, policy: Policy) -> None:
    resident: set[Key] = set()

    def fits() -> None:
        assert len(resident) <= policy.slots * LAYERS
        if policy.scope == "layer":
            held = [layer for layer, _ in resident]
            assert all(held.count(layer) <= policy.slots for layer in range(LAYERS))

    for lookup, decision in decided(decider_for(policy, trace, size, profile), trace):
        wanted = set(lookup.wanted())
        assert {(lookup.layer, e) for e in decision.hits} == wanted & resident
        assert {(lookup.layer, e) for e in decision.misses} == wanted - resident
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            assert set(left) <= resident - wanted
            resident -= set(left)
            if expert not in decision.staged:
                resident.add((lookup.layer, expert))
            fits()
        for key, left in zip(decision.fetched, decision.displaced, strict=True):
            assert key not in resident
            assert set(left) <= resident
            resident -= set(left)
            resident.add(key)
            fits()


@MANY
@CASES
def test_what_was_fetched_stays_until_its_layer_asks(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    pending: set[Key] = set()
    for lookup, decision in decided(decider_for(policy, trace, size, profile), trace):
        pending = {key for key in pending if key[0] != lookup.layer}
        gone = {key for left in (*decision.evicted, *decision.displaced) for key in left}
        assert not gone & pending
        assert not {key for left in decision.displaced for key in left} & set(decision.fetched)
        pending |= set(decision.fetched)


@MANY
@CASES
def test_a_step_issues_no_more_than_its_budget(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    issued = 0
    for lookup, decision in decided(decider_for(policy, trace, size, profile), trace):
        issued = (issued if lookup.layer else 0) + sum(map(size, decision.fetched))
        assert policy.prefetch_bytes is None or issued <= policy.prefetch_bytes


@settings(derandomize=True, max_examples=100, deadline=None)
@CASES
def test_the_same_is_decided_again(trace: Trace, profile: Trace, policy: Policy) -> None:
    first, second = (decider_for(policy, trace, size, profile) for _ in range(2))
    assert decided(first, trace) == decided(second, trace)


@settings(derandomize=True, max_examples=100, deadline=None)
@CASES
def test_without_a_prefetcher_or_a_budget_the_cache_decides_alone(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    cache = cache_for(policy, trace, profile)
    alone = [cache.lookup(one.layer, one.accesses, one.weights) for one in lookups_of(trace)]
    for change in ({"prefetch": "none"}, {"prefetch_bytes": 0}):
        decider = decider_for(policy.model_copy(update=change), trace, size, profile)
        assert [decision for _, decision in decided(decider, trace)] == alone


@settings(derandomize=True, max_examples=100, deadline=None)
@CASES
def test_a_live_run_decides_what_the_simulation_does(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    shape = (LAYERS, EXPERTS, TOP_K)
    if PREFETCHERS[policy.prefetch].oracle or EVICTIONS[policy.cache].oracle:
        with pytest.raises(InputError, match="looks into the future: it needs a trace, not a live"):
            live_decider(policy, shape, size, profile)
    else:
        live = live_decider(policy, shape, size, profile)
        assert decided(live, trace) == decided(decider_for(policy, trace, size, profile), trace)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    trace=TRACES,
    policy=POLICIES,
    host_bytes=st.none() | st.integers(0, 90),
    host_tokens=st.integers(0, 2),
    keep=st.sampled_from(["decoded", "compressed", "both"]),
)
def test_a_live_run_places_experts_as_the_simulation_does(
    trace: Trace, policy: Policy, host_bytes: int | None, host_tokens: int, keep: str
) -> None:
    placed = {"host_bytes": host_bytes, "host_tokens": host_tokens, "keep": keep}
    online = {"cache": "lru", "prefetch": "last-token"}
    policy = policy.model_copy(update={**placed, **online})
    sizes, shape = Sizes(size, 7), (LAYERS, EXPERTS, TOP_K)
    live = live_decider(policy, shape, size, sizes=sizes)
    log = decided(decider_for(policy, trace, size, sizes=sizes), trace)
    assert decided(live, trace) == log
    assert (live.host is None) == (host_bytes is None)
    if host_bytes is not None or keep != "decoded":
        with pytest.raises(ValueError, match="in bytes: give the sizes of experts"):
            live_decider(policy, shape, size)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(trace=TRACES, policy=POLICIES, host_bytes=st.integers(0, 90))
def test_it_is_known_whose_blobs_left_host_memory(
    trace: Trace, policy: Policy, host_bytes: int
) -> None:
    policy = policy.model_copy(update={"host_bytes": host_bytes, "cache": "lru"})
    decider = decider_for(policy, trace, size, trace, Sizes(size, 7))
    assert decider.host is not None
    every = [(layer, expert) for layer in range(LAYERS) for expert in range(EXPERTS)]
    for lookup in lookups_of(trace):
        before = {key for key in every if key in decider.host}
        decision = decider.decide(lookup)
        after = {key for key in every if key in decider.host}
        assert before - after <= set(decider.left)
        assert after <= before | set(decision.from_disk)


@pytest.mark.parametrize("cache", [name for name in EVICTIONS if name != "pinned"])
@settings(derandomize=True, max_examples=60, deadline=None)
@given(trace=TRACES, distance=st.integers(1, LAYERS), pools=st.sampled_from([1, LAYERS]))
def test_with_room_for_what_it_foresees_an_oracle_misses_in_the_first_lookup_alone(
    cache: str, trace: Trace, distance: int, pools: int
) -> None:
    # The room: for the largest lookup in each pool of a layer, or for as many lookups in a row as
    # the oracle looks ahead in the one pool. Pins could stand in the way. Further ahead than one
    # step, it would name experts of a layer for two lookups, and the later ones could take the
    # room of the sooner ones.
    future = future_of(trace)
    asked = [len(keys) for keys in future]
    room = max(sum(asked[at : at + distance]) for at in range(len(asked)))
    if pools > 1:
        room = max(asked)
    made = cache_of(cache, [room] * pools, lambda _: 1, future=future)
    facts = PrefetchFacts(LAYERS, EXPERTS, TOP_K, distance, future=future)
    log = decided(Decider(made, Oracle(facts), None, size), trace)
    assert len(log[0][1].misses) == asked[0]
    assert not any(decision.misses for _, decision in log[1:])


def test_a_hand_count() -> None:
    # An oracle with one slot for each of the two experts of a lookup. TOY asks for 01 23 01, then
    # 12 23 30, then 01 01 01 three times.
    log = decided(decider_for(Policy(slots=2, prefetch="oracle"), TOY, lambda _: 10), TOY)
    decisions = [decision for _, decision in log]
    assert decisions[0] == Decision(
        0, (), (0, 1), ((), ()), fetched=((1, 2), (1, 3)), displaced=((), ())
    )
    assert decisions[1] == Decision(1, (2, 3), (), fetched=((2, 0), (2, 1)), displaced=((), ()))
    assert decisions[2] == Decision(2, (0, 1), (), fetched=((0, 2),), displaced=(((0, 0),),))
    assert decisions[3] == Decision(0, (1, 2), ())
    assert decisions[4] == Decision(1, (2, 3), (), fetched=((2, 3),), displaced=(((2, 1),),))
    assert decisions[5] == Decision(2, (3, 0), (), fetched=((0, 0),), displaced=(((0, 2),),))


def test_a_budget_is_of_a_step_and_the_first_that_exceeds_it_ends_a_prefetch() -> None:
    policy = Policy(slots=2, prefetch="oracle", prefetch_bytes=30)
    log = decided(decider_for(policy, TOY, lambda _: 10), TOY)
    fetched = [decision.fetched for _, decision in log[:6]]
    # Layer 2 misses 1, which the budget did not allow, and nothing is left for the next step.
    assert fetched[:3] == [((1, 2), (1, 3)), ((2, 0),), ()]
    assert log[2][1].misses == (1,)
    assert fetched[4:] == [((2, 3),), ((0, 0),)]


@pytest.mark.parametrize("distance", [1, 2])
def test_a_perfect_gate_fetches_what_the_oracle_does_within_a_step(distance: int) -> None:
    trace = foreseen(TOY, 2)
    fetched = []
    for name in ("gate", "oracle"):
        policy = Policy(slots=4, prefetch=name, distance=distance)
        fetched.append(decided(decider_for(policy, trace, size), trace)[0][1].fetched)
    assert len(fetched[0]) == 2 * distance
    assert fetched[0] == fetched[1]


def test_gates_must_have_been_asked_as_far_ahead_as_the_policy_looks() -> None:
    policy = Policy(prefetch="gate", distance=2)
    for trace, reach in ((TOY, 0), (foreseen(TOY, 1), 1)):
        with pytest.raises(InputError, match=f"gates choose {reach} ahead; record one with --look"):
            decider_for(policy, trace, size)
    decider_for(policy, foreseen(TOY, 2), size)


def test_a_profile_is_asked_for_and_must_be_of_the_same_shape() -> None:
    policy = Policy(prefetch="popularity")
    with pytest.raises(InputError, match="prefetcher popularity needs a profile"):
        decider_for(policy, TOY, size)
    with pytest.raises(InputError, match="prefetcher popularity needs a profile"):
        live_decider(policy, (3, 4, 2), size)
    wider = trace_of([[[0, 5]] * 3], experts=6)
    with pytest.raises(InputError, match="3 layers of 6 experts, top-2, the run 3 of 4, top-2"):
        decider_for(Policy(prefetch="transition"), TOY, size, wider)
    decider_for(Policy(), TOY, size, wider)


def test_unknown_names_are_refused() -> None:
    for policy in (Policy(prefetch="crystal"), Policy(cache="arc")):
        with pytest.raises(InputError, match="is called"):
            decider_for(policy, TOY, size)
        with pytest.raises(InputError, match="is called"):
            live_decider(policy, (3, 4, 2), size)
