"""What every eviction policy keeps, and what each of them decides on small cases."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.policy.cache import Decision
from offsim.policy.evictions import Eviction, Key, PoolFacts
from offsim.policy.lookup import lookups_of
from offsim.policy.policy import Policy
from offsim.policy.registry import EVICTIONS
from offsim.policy.replay import cache_for, replay
from tests.builders import trace_of

ONLINE = [name for name, eviction in EVICTIONS.items() if not eviction.oracle]
LAYERS, EXPERTS = 3, 6
STEP = st.lists(
    st.lists(st.integers(0, EXPERTS - 1), min_size=2, max_size=2, unique=True),
    min_size=LAYERS,
    max_size=LAYERS,
)
TRACES = st.lists(STEP, min_size=1, max_size=25).map(lambda steps: trace_of(steps, EXPERTS))
SCOPES = st.sampled_from(["layer", "global"])
CASES = given(trace=TRACES, slots=st.integers(0, EXPERTS), scope=SCOPES)


def decisions(policy: Policy, trace: object) -> list[Decision]:
    cache = cache_for(policy, trace, trace)  # type: ignore[arg-type]
    lookups = lookups_of(trace)  # type: ignore[arg-type]
    return [cache.lookup(one.layer, one.accesses, one.weights) for one in lookups]


@pytest.mark.parametrize("name", EVICTIONS)
@settings(derandomize=True, max_examples=60, deadline=None)
@CASES
def test_a_log_accounts_for_every_expert(name: str, trace: object, slots: int, scope: str) -> None:
    policy = Policy(cache=name, slots=slots, scope=scope)  # type: ignore[arg-type]
    resident: set[Key] = set()
    for decision in decisions(policy, trace):
        wanted = {(decision.layer, e) for e in (*decision.hits, *decision.misses)}
        assert {(decision.layer, e) for e in decision.hits} == wanted & resident
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            assert not set(left) & wanted
            assert set(left) <= resident
            resident -= set(left)
            if expert not in decision.staged:
                resident.add((decision.layer, expert))
            if scope == "layer":
                own = [key for key in resident if key[0] == decision.layer]
                assert len(own) <= slots
            assert len(resident) <= slots * LAYERS


@pytest.mark.parametrize("name", EVICTIONS)
@settings(derandomize=True, max_examples=30, deadline=None)
@CASES
def test_the_same_is_decided_again(name: str, trace: object, slots: int, scope: str) -> None:
    policy = Policy(cache=name, slots=slots, scope=scope)  # type: ignore[arg-type]
    assert decisions(policy, trace) == decisions(policy, trace)


@pytest.mark.parametrize("name", EVICTIONS)
@settings(derandomize=True, max_examples=30, deadline=None)
@given(trace=TRACES)
def test_without_room_all_misses_and_with_all_room_each_expert_once(
    name: str, trace: object
) -> None:
    nothing = decisions(Policy(cache=name, slots=0), trace)
    assert not any(decision.hits for decision in nothing)
    everything = decisions(Policy(cache=name, slots=EXPERTS), trace)
    missed = [(d.layer, e) for d in everything for e in d.misses]
    assert len(missed) == len(set(missed)) == len({(d.layer, e) for d in nothing for e in d.misses})


@pytest.mark.parametrize("name", [name for name in ONLINE if name != "pinned"])
@settings(derandomize=True, max_examples=100, deadline=None)
@given(trace=TRACES, room=st.integers(2, EXPERTS * LAYERS), scope=SCOPES)
def test_no_policy_that_takes_in_what_it_misses_beats_belady(
    name: str, trace: object, room: int, scope: str
) -> None:
    # With slots for the experts of a lookup, so that nothing has to be staged. Pins do not leave
    # even then, and what is staged beside them can pay.
    slots = {"slots": min(room, EXPERTS)} if scope == "layer" else {"slots": 0, "extra": room}
    found = {}
    for one in (name, "belady"):
        policy = Policy(cache=one, scope=scope, **slots)  # type: ignore[arg-type]
        cache = cache_for(policy, trace, trace)  # type: ignore[arg-type]
        found[one] = replay(trace, cache, [1] * LAYERS).hits  # type: ignore[arg-type]
    assert found[name] <= found["belady"]


def test_lfu_counts_outlive_a_stay() -> None:
    made = filled("lfu", [A, A, B, C])
    assert made.victim({A}) == B
    made.admit(D, 1)
    made.used([D], [1.0])
    assert made.victim(()) == D
    made.admit(B, 1)
    made.used([B], [1.0])
    assert made.victim(()) == C, "B was asked for three times by now, C twice"


A, B, C, D = ((0, expert) for expert in range(4))


def pool(name: str, capacity: int = 3, **facts: object) -> Eviction:
    return EVICTIONS[name](PoolFacts(capacity, **facts))  # type: ignore[arg-type]


def filled(name: str, uses: Sequence[Key], **facts: object) -> Eviction:
    """A pool of A, B and C, admitted in this order and then used."""
    made = pool(name, **facts)
    for key in (A, B, C):
        made.admit(key, 1)
        made.used([key], [0.5])
    for key in uses:
        made.used([key], [0.1 if key == A else 0.9])
    return made


@pytest.mark.parametrize(
    ("name", "uses", "leaves"),
    [
        ("lru", [A, B], C),
        ("lru", [], A),
        ("fifo", [A, A, B], A),
        ("lfu", [A, B, B, C, C], A),
        ("lfu", [A, A, B, C, C], B),
        ("lfu", [C, B], A),
        ("lfu-aging", [A, A, B, C], B),
        ("weight", [A, B, C], A),
        ("weight", [B, C, A, A, A], A),
        ("s3-fifo", [], A),
        ("s3-fifo", [A, A], B),
    ],
)
def test_who_leaves(name: str, uses: list[Key], leaves: Key) -> None:
    assert filled(name, uses).victim(()) == leaves


@pytest.mark.parametrize("name", EVICTIONS)
def test_who_must_stay_stays(name: str) -> None:
    made = filled(name, [A, B, C], future=[[A], [B], [C]], popularity={})
    assert made.victim({A, B}) == C
    assert made.victim({A, B}) is None


def test_a_newcomer_of_aging_lfu_starts_at_the_number_of_who_left() -> None:
    made = filled("lfu-aging", [A] * 5 + [B] * 5 + [C] * 5)
    assert made.victim(()) == A  # the oldest of three that were used six times
    made.admit(D, 1)
    made.used([D], [1.0])
    assert made.victim(()) == B, "plain LFU would evict the newcomer"


def test_weights_of_long_ago_count_less() -> None:
    made = pool("weight")
    for key, weight in ((A, 3.0), (B, 1.0)):
        made.admit(key, 1)
        made.used([key], [weight])
    for _ in range(200):
        made.used([], [])
    made.used([B], [1.0])
    assert made.victim(()) == A


def test_draws_are_even_and_seeded() -> None:
    drawn = [filled("random", [], seed=seed).victim(()) for seed in range(300)]
    assert all(60 < drawn.count(key) < 140 for key in (A, B, C))
    assert [filled("random", [], seed=7).victim(()) for _ in range(3)] == [drawn[7]] * 3


def test_the_popular_are_pinned_up_to_half_of_the_room() -> None:
    made = pool("pinned", 4, popularity={A: 1, B: 9, C: 8, D: 2})
    for key in (A, B, C, D):
        made.admit(key, 1)
    assert [made.victim(()) for _ in range(3)] == [A, D, None]


def test_belady_evicts_who_is_needed_last() -> None:
    made = filled("belady", [], future=[[A], [B], [C], [B], [A], [B], [C]])
    assert made.victim(()) == C
    never = filled("belady", [], future=[[A], [B], [C], [B], [C]])
    assert never.victim(()) == A


def test_s3_fifo_remembers_who_left_its_small_queue() -> None:
    made = filled("s3-fifo", [B, B, C, C])
    assert made.victim(()) == A
    made.admit(A, 1)  # remembered: into the main queue, behind B and C that moved there
    made.admit(D, 1)
    assert made.victim(()) == D


KEYS = [(0, expert) for expert in range(8)]


@pytest.mark.parametrize("name", EVICTIONS)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(KEYS), st.booleans(), st.sets(st.sampled_from(KEYS)))),
    capacity=st.integers(1, 20),
)
def test_someone_leaves_unless_all_must_stay(
    name: str, steps: list[tuple[Key, bool, set[Key]]], capacity: int
) -> None:
    # Experts come in lookups and between them, and who must stay is anyone.
    future = [[key] for key, looked_up, _ in steps if looked_up]
    made = pool(name, capacity, future=future, popularity=dict.fromkeys(KEYS[:3], 1.0))
    resident: set[Key] = set()
    for key, looked_up, keep in steps:
        if key not in resident:
            made.admit(key, 1)
            resident.add(key)
        if looked_up:
            made.used([key], [1.0])
        free = {other for other in resident - keep if made.may_leave(other)}
        victim = made.victim(keep)
        assert (victim in free) if free else (victim is None)
        resident.discard(victim)  # type: ignore[arg-type]


def test_only_the_pinned_never_leave() -> None:
    for name in EVICTIONS:
        made = pool(name, 2, popularity={A: 1, B: 9})
        made.admit(A, 1)
        made.admit(B, 1)
        assert [made.may_leave(key) for key in (A, B)] == [True, name != "pinned"]


def test_belady_knows_the_next_use_of_what_comes_between_two_lookups() -> None:
    made = pool("belady", future=[[A], [B], [C], [B], [A]])
    for key in (A, B, C):
        made.admit(key, 1)
    made.used([A], [1.0])
    assert made.victim(()) == A, "B is asked for next, C after it, A at the end"
    made.admit(D, 1)
    assert made.victim(()) == D, "never asked for"
    assert made.victim(()) == C


def test_s3_fifo_finds_who_moved_to_its_main_queue_just_now() -> None:
    made = pool("s3-fifo", 20)
    made.admit(A, 1)
    for _ in range(3):
        made.used([A], [1.0])
    # The small queue is below its share, the main one empty; A moves there and then leaves.
    assert made.victim(()) == A
