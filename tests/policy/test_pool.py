from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.policy.cache import Decision, ExpertCache
from offsim.policy.policy import Policy
from offsim.policy.registry import cache_of
from offsim.policy.replay import pools_for, replay
from offsim.trace import DECODE, PREFILL, Trace
from tests.builders import trace_of

LAYERS = 2
ACCESSES = st.lists(st.integers(0, 5), min_size=1, max_size=8)
STEPS = st.lists(st.tuples(st.integers(0, LAYERS - 1), ACCESSES), max_size=30)


FREE, STAGED = -1, -2


def lru(layers: int, slots: int) -> ExpertCache:
    return pools_for(Policy(slots=slots), layers, None, None, None)


def one_pool(slots: int) -> ExpertCache:
    return pools_for(Policy(slots=0, extra=slots, scope="global"), LAYERS, None, None, None)


def victims(decision: Decision) -> tuple[int, ...]:
    """For each miss who leaves, or FREE, or STAGED; slots hold one expert each."""
    found = []
    for expert, left in zip(decision.misses, decision.evicted, strict=True):
        if expert in decision.staged:
            assert left == ()
            found.append(STAGED)
        else:
            assert all(layer == decision.layer for layer, _ in left)
            found.append(left[0][1] if left else FREE)
            assert len(left) <= 1
    return tuple(found)


def run(slots: int, *steps: list[int]) -> list[tuple[tuple[int, ...], ...]]:
    """Hits, misses and victims of each lookup of one layer."""
    cache = lru(1, slots)
    decisions = [cache.lookup(0, step) for step in steps]
    return [(d.hits, d.misses, victims(d)) for d in decisions]


def test_free_slots_fill_first() -> None:
    assert run(3, [4, 1], [2]) == [((), (4, 1), (FREE, FREE)), ((), (2,), (FREE,))]


def test_the_oldest_goes_first() -> None:
    assert run(2, [0], [1], [2], [3]) == [
        ((), (0,), (FREE,)),
        ((), (1,), (FREE,)),
        ((), (2,), (0,)),
        ((), (3,), (1,)),
    ]


def test_a_hit_makes_an_expert_young_again() -> None:
    assert run(2, [0], [1], [0], [2])[2:] == [((0,), (), ()), ((), (2,), (1,))]


def test_recency_follows_router_order_within_a_step() -> None:
    assert run(3, [2, 0, 1], [3, 4]) == [
        ((), (2, 0, 1), (FREE, FREE, FREE)),
        ((), (3, 4), (2, 0)),
    ]


def test_a_repeat_promotes_and_is_not_counted() -> None:
    # 2 comes first and again at the end, so 0 is the oldest.
    assert run(3, [2, 0, 1, 2], [3, 4]) == [
        ((), (2, 0, 1), (FREE, FREE, FREE)),
        ((), (3, 4), (0, 1)),
    ]


def test_experts_of_the_step_are_never_victims() -> None:
    # 0 is the oldest but wanted, so 1 goes.
    assert run(2, [0], [1], [2, 0])[2] == ((0,), (2,), (1,))


def test_hits_and_misses_keep_router_order() -> None:
    assert run(4, [0, 1], [3, 1, 2, 0])[1] == ((1, 0), (3, 2), (FREE, FREE))


def test_what_exceeds_the_slots_is_staged() -> None:
    assert run(2, [0, 1, 2, 3], [0, 1, 2]) == [
        ((), (0, 1, 2, 3), (FREE, FREE, STAGED, STAGED)),
        ((0, 1), (2,), (STAGED,)),
    ]


def test_victims_run_out_before_staging() -> None:
    assert run(2, [0], [1], [1, 2, 3]) == [
        ((), (0,), (FREE,)),
        ((), (1,), (FREE,)),
        ((1,), (2, 3), (0, STAGED)),
    ]


def test_hand_count_of_a_toy_layer() -> None:
    # Top-2 of 4 with two slots: kept after each step 01, 12, 12, 30, 32.
    found = run(2, [0, 1], [1, 2], [2, 1], [3, 0], [3, 2])
    assert [hits for hits, _, _ in found] == [(), (1,), (2, 1), (), (3,)]
    assert [left for _, _, left in found] == [(FREE, FREE), (0,), (), (2, 1), (0,)]


def test_no_slots_stage_everything() -> None:
    assert run(0, [0, 1], [1, 0, 1]) == [
        ((), (0, 1), (STAGED, STAGED)),
        ((), (1, 0), (STAGED, STAGED)),
    ]


@pytest.mark.parametrize("slots", [4, 5, 100])
def test_slots_for_all_experts_miss_each_once(slots: int) -> None:
    found = run(slots, [0, 1], [2, 1], [3, 0], [2, 3], [0, 1, 2, 3])
    assert [misses for _, misses, _ in found] == [(0, 1), (2,), (3,), (), ()]
    assert {victim for _, _, left in found for victim in left} == {FREE}


def test_layers_do_not_share_slots() -> None:
    cache = lru(2, 1)
    assert cache.lookup(0, [0]) == Decision(0, (), (0,), ((),))
    assert cache.lookup(1, [0]) == Decision(1, (), (0,), ((),))
    assert cache.lookup(1, [1]) == Decision(1, (), (1,), (((1, 0),),))
    assert cache.lookup(0, [0]) == Decision(0, (0,), ())


def test_an_empty_step_changes_nothing() -> None:
    assert run(1, [0], [], [0])[1:] == [((), (), ()), ((0,), (), ())]


@dataclass
class Reference:
    """The contract written down with time stamps instead of an ordered mapping."""

    slots: int
    clock: int = 0
    used: dict[int, dict[int, int]] = field(default_factory=dict)

    def lookup(self, layer: int, accesses: list[int]) -> tuple[tuple[int, ...], ...]:
        kept = self.used.setdefault(layer, {})
        wanted: list[int] = []
        for expert in accesses:
            if expert not in wanted:
                wanted.append(expert)
        hits = [expert for expert in wanted if expert in kept]
        misses = [expert for expert in wanted if expert not in kept]
        leaving = []
        for expert in misses:
            old = [e for e in kept if e not in wanted]
            if len(kept) < self.slots:
                leaving.append(FREE)
            elif old:
                leaving.append(min(old, key=lambda e: kept[e]))
                del kept[leaving[-1]]
            else:
                leaving.append(STAGED)
            if leaving[-1] != STAGED:
                kept[expert] = -1
        for expert in accesses:
            self.clock += 1
            if expert in kept:
                kept[expert] = self.clock
        return tuple(hits), tuple(misses), tuple(leaving)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(slots=st.integers(0, 7), steps=STEPS)
def test_decides_as_the_reference_does(slots: int, steps: list[tuple[int, list[int]]]) -> None:
    cache, reference = lru(LAYERS, slots), Reference(slots)
    for layer, accesses in steps:
        found = cache.lookup(layer, accesses)
        assert (found.hits, found.misses, victims(found)) == reference.lookup(layer, accesses)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(slots=st.integers(0, 7), steps=STEPS)
def test_a_log_of_decisions_never_overfills_the_slots(
    slots: int, steps: list[tuple[int, list[int]]]
) -> None:
    cache = lru(LAYERS, slots)
    kept: dict[int, set[int]] = {layer: set() for layer in range(LAYERS)}
    for layer, accesses in steps:
        decision = cache.lookup(layer, accesses)
        here = kept[layer]
        assert set(decision.hits) == set(accesses) & here
        assert set(decision.misses) == set(accesses) - here
        for expert, victim in zip(decision.misses, victims(decision), strict=True):
            if victim >= 0:
                assert victim not in accesses
                here.remove(victim)
            if victim != STAGED:
                here.add(expert)
            assert len(here) <= slots


@settings(derandomize=True, max_examples=100, deadline=None)
@given(steps=st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True)))
def test_more_slots_never_hit_less(steps: list[list[int]]) -> None:
    hits = [sum(len(found) for found, _, _ in run(slots, *steps)) for slots in range(2, 9)]
    assert hits == sorted(hits)


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[Trace, int]:
    """Requests over several layers, and a pool that the other layers of one token fill."""
    layers, top_k = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    prompt, decode = draw(st.integers(0, 4)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = rng.random((prompt + decode, layers, 5)).argsort(-1)[..., :top_k]
    trace = trace_of(ids.tolist(), 5)
    phase = np.repeat([PREFILL, DECODE], (prompt, decode)).astype(np.uint8)
    pool = draw(st.integers(0, (layers - 1) * top_k))
    return Trace(trace.info, **(trace.arrays() | {"phase": phase})), pool


@settings(derandomize=True, max_examples=300, deadline=None)
@given(sweep=sweeps())
def test_one_lru_pool_that_the_other_layers_fill_hits_nothing_in_decoding(
    sweep: tuple[Trace, int],
) -> None:
    trace, room = sweep
    cache = pools_for(Policy(slots=0, extra=room, scope="global"), trace.layers, None, None, None)
    counts = replay(trace, cache, [1] * trace.layers)
    assert counts.lookups_decode > 0
    assert counts.hits_decode == 0


def test_one_lru_pool_with_room_for_one_more_can_hit() -> None:
    # Three slots for a cycle of four. In layer 0 one of 0 and 1 is left each time, and stays.
    trace = trace_of([[[0, 1], [0, 1]]] * 6)
    cache = pools_for(Policy(slots=0, extra=3, scope="global"), 2, None, None, None)
    assert replay(trace, cache, [1, 1]).hits_decode > 0


@pytest.mark.parametrize(
    ("slots", "expected"), [(4, 0.437), (8, 0.656), (12, 0.808), (16, 0.901), (24, 0.983)]
)
def test_hit_rate_of_a_real_trace(gpt_oss_trace: Trace, slots: int, expected: float) -> None:
    counts = replay(gpt_oss_trace, lru(gpt_oss_trace.layers, slots), [1] * 24)
    assert counts.lookups == 12 * 511 * 24 * 4
    assert counts.hit_rate == counts.hit_rate_decode == pytest.approx(expected, abs=5e-4)
    assert counts.bytes_read == counts.lookups - counts.hits


def test_a_global_pool_takes_from_any_layer() -> None:
    cache = one_pool(2)
    assert cache.lookup(0, [0, 1]) == Decision(0, (), (0, 1), ((), ()))
    assert cache.lookup(1, [5]) == Decision(1, (), (5,), (((0, 0),),))
    assert cache.lookup(0, [1]).hits == (1,)
    assert cache.lookup(1, [5, 6]) == Decision(1, (5,), (6,), (((0, 1),),))


def test_a_pool_in_bytes_evicts_as_many_as_it_must() -> None:
    size = {0: 10, 1: 10, 2: 10, 3: 25, 4: 31}
    cache = cache_of("lru", [30], lambda key: size[key[1]])
    cache.lookup(0, [0, 1, 2])
    assert cache.lookup(0, [3]) == Decision(0, (), (3,), (((0, 0), (0, 1), (0, 2)),))
    assert cache.lookup(0, [4]) == Decision(0, (), (4,), ((),), (4,)), "larger than the pool"
    assert cache.lookup(0, [3, 0]) == Decision(0, (3,), (0,), ((),), (0,)), "3 must stay"


def test_a_global_lru_that_a_token_sweeps_never_hits_in_decoding() -> None:
    # Three layers ask for two experts each. With room for four of the six, each lookup finds both
    # of its experts gone; with room for five, one of them is left and stays, because the experts
    # of a lookup never leave for each other.
    trace = trace_of([[[0, 1]] * 3] * 6)
    rates = [
        replay(trace, cache_of("lru", [capacity], lambda _: 1), [1] * 3).hit_rate_decode
        for capacity in range(1, 7)
    ]
    assert rates == [0, 0, 0, 0, 0.5, 1]


ANY = 10**9


def one(_: object) -> int:
    return 1


def test_a_prefetched_expert_hits() -> None:
    cache = lru(2, 2)
    cache.lookup(0, [0, 1])
    assert cache.fetch([(1, 3), (1, 0)], one, ANY) == ([(1, 3), (1, 0)], [(), ()], ANY - 2)
    assert cache.lookup(1, [0, 3]) == Decision(1, (0, 3), ())


def test_who_leaves_for_a_prefetched_expert_is_who_leaves_for_a_miss() -> None:
    cache = lru(2, 2)
    cache.lookup(1, [0])
    cache.lookup(1, [1])
    assert cache.fetch([(1, 3)], one, ANY) == ([(1, 3)], [((1, 0),)], ANY - 1)
    assert cache.lookup(1, [0]).evicted == (((1, 1),),), "3 came last"


def test_residents_are_passed_over_and_cost_nothing() -> None:
    cache = lru(1, 3)
    cache.lookup(0, [0, 1])
    assert cache.fetch([(0, 1), (0, 2), (0, 2)], one, 1) == ([(0, 2)], [()], 0)


def test_the_first_that_exceeds_the_budget_ends_a_prefetch() -> None:
    size = {0: 5, 1: 9, 2: 1}
    cache = lru(1, 4)
    fetched = cache.fetch([(0, 0), (0, 1), (0, 2)], lambda key: size[key[1]], 10)
    assert fetched == ([(0, 0)], [()], 5), "1 takes more than the 5 that are left"
    assert cache.fetch([(0, 2)], one, 0) == ([], [], 0)


def test_candidates_do_not_leave_for_each_other() -> None:
    cache = lru(2, 2)
    cache.lookup(1, [0, 1])
    # 1 is the younger; 0 is older but wanted next, and nobody is left to make room for 3.
    assert cache.fetch([(1, 2), (1, 0), (1, 3)], one, ANY) == ([(1, 2)], [((1, 1),)], ANY - 1)


def test_what_was_prefetched_stays_until_its_layer_asks() -> None:
    cache = lru(3, 1)
    assert cache.fetch([(1, 0)], one, ANY)[0] == [(1, 0)]
    assert cache.fetch([(1, 2)], one, ANY) == ([], [], ANY), "0 of layer 1 was not asked for yet"
    cache.lookup(0, [0])
    assert cache.fetch([(1, 2), (2, 0)], one, ANY)[0] == [(2, 0)], "passed over, not ended"
    assert cache.lookup(1, [3]) == Decision(1, (), (3,), (((1, 0),),)), "it may leave now"


def test_a_miss_finds_no_room_beside_what_other_layers_wait_for() -> None:
    cache = one_pool(2)
    cache.fetch([(1, 0), (1, 1)], one, ANY)
    assert cache.lookup(0, [0]) == Decision(0, (), (0,), ((),), (0,))
    assert cache.lookup(1, [1]) == Decision(1, (1,), ())
    assert cache.lookup(0, [0]) == Decision(0, (), (0,), (((1, 0),),))


def test_nobody_leaves_for_a_candidate_that_finds_no_room_in_the_end() -> None:
    size = {0: 10, 1: 10, 2: 10, 3: 25, 4: 31}
    cache = cache_of("lru", [30], lambda key: size[key[1]])
    cache.lookup(0, [0, 1])
    cache.fetch([(1, 2)], one, ANY)
    assert cache.fetch([(1, 3), (1, 4)], one, ANY) == ([], [], ANY), "20 of 30 may leave"
    assert cache.lookup(0, [0, 1]).hits == (0, 1)
    cache.lookup(1, [2])
    everyone = ((0, 0), (0, 1), (1, 2))
    assert cache.fetch([(1, 3)], one, ANY) == ([(1, 3)], [everyone], ANY - 1)


def test_nobody_leaves_in_vain_beside_pins() -> None:
    size = {0: 10, 1: 10, 2: 15}
    sizes = cache_of("pinned", [20], lambda key: size[key[1]], popularity={(0, 0): 1})
    sizes.lookup(0, [0, 1])
    assert sizes.fetch([(0, 2)], one, ANY) == ([], [], ANY)
    assert sizes.lookup(0, [0, 1]).hits == (0, 1)
