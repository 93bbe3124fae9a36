from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.policy.cache import FREE, STAGED, Decision
from offsim.policy.lru import LruPerLayer
from offsim.trace import Trace, steps_of

LAYERS = 2
ACCESSES = st.lists(st.integers(0, 5), min_size=1, max_size=8)
STEPS = st.lists(st.tuples(st.integers(0, LAYERS - 1), ACCESSES), max_size=30)


def run(slots: int, *steps: list[int]) -> list[tuple[tuple[int, ...], ...]]:
    """Hits, misses and victims of each lookup of one layer."""
    cache = LruPerLayer(layers=1, slots=slots)
    decisions = [cache.lookup(0, step) for step in steps]
    return [(d.hits, d.misses, d.victims) for d in decisions]


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
    assert [victims for _, _, victims in found] == [(FREE, FREE), (0,), (), (2, 1), (0,)]


def test_no_slots_stage_everything() -> None:
    assert run(0, [0, 1], [1, 0, 1]) == [
        ((), (0, 1), (STAGED, STAGED)),
        ((), (1, 0), (STAGED, STAGED)),
    ]


@pytest.mark.parametrize("slots", [4, 5, 100])
def test_slots_for_all_experts_miss_each_once(slots: int) -> None:
    found = run(slots, [0, 1], [2, 1], [3, 0], [2, 3], [0, 1, 2, 3])
    assert [misses for _, misses, _ in found] == [(0, 1), (2,), (3,), (), ()]
    assert {victim for _, _, victims in found for victim in victims} == {FREE}


def test_layers_do_not_share_slots() -> None:
    cache = LruPerLayer(layers=2, slots=1)
    assert cache.lookup(0, [0]) == Decision(0, (), (0,), (FREE,))
    assert cache.lookup(1, [0]) == Decision(1, (), (0,), (FREE,))
    assert cache.lookup(1, [1]) == Decision(1, (), (1,), (0,))
    assert cache.lookup(0, [0]) == Decision(0, (0,), (), ())


def test_an_empty_step_changes_nothing() -> None:
    assert run(1, [0], [], [0])[1:] == [((), (), ()), ((0,), (), ())]


@dataclass
class Reference:
    """The contract written down with time stamps instead of an ordered mapping."""

    slots: int
    clock: int = 0
    used: dict[int, dict[int, int]] = field(default_factory=dict)

    def lookup(self, layer: int, accesses: list[int]) -> Decision:
        kept = self.used.setdefault(layer, {})
        wanted: list[int] = []
        for expert in accesses:
            if expert not in wanted:
                wanted.append(expert)
        hits = [expert for expert in wanted if expert in kept]
        misses = [expert for expert in wanted if expert not in kept]
        victims = []
        for expert in misses:
            old = [e for e in kept if e not in wanted]
            if len(kept) < self.slots:
                victims.append(FREE)
            elif old:
                victims.append(min(old, key=lambda e: kept[e]))
                del kept[victims[-1]]
            else:
                victims.append(STAGED)
            if victims[-1] != STAGED:
                kept[expert] = -1
        for expert in accesses:
            self.clock += 1
            if expert in kept:
                kept[expert] = self.clock
        return Decision(layer, tuple(hits), tuple(misses), tuple(victims))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(slots=st.integers(0, 7), steps=STEPS)
def test_decides_as_the_reference_does(slots: int, steps: list[tuple[int, list[int]]]) -> None:
    cache, reference = LruPerLayer(LAYERS, slots), Reference(slots)
    for layer, accesses in steps:
        assert cache.lookup(layer, accesses) == reference.lookup(layer, accesses)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(slots=st.integers(0, 7), steps=STEPS)
def test_a_log_of_decisions_never_overfills_the_slots(
    slots: int, steps: list[tuple[int, list[int]]]
) -> None:
    cache = LruPerLayer(LAYERS, slots)
    kept: dict[int, set[int]] = {layer: set() for layer in range(LAYERS)}
    for layer, accesses in steps:
        decision = cache.lookup(layer, accesses)
        here = kept[layer]
        assert set(decision.hits) == set(accesses) & here
        assert set(decision.misses) == set(accesses) - here
        assert len(decision.victims) == len(decision.misses)
        for expert, victim in zip(decision.misses, decision.victims, strict=True):
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


@pytest.mark.parametrize(
    ("slots", "expected"), [(4, 0.437), (8, 0.656), (12, 0.808), (16, 0.901), (24, 0.983)]
)
def test_hit_rate_of_a_real_trace(gpt_oss_trace: Trace, slots: int, expected: float) -> None:
    cache = LruPerLayer(gpt_oss_trace.layers, slots)
    hits = lookups = 0
    for step in steps_of(gpt_oss_trace):
        for layer, accesses in enumerate(np.moveaxis(step.experts, 1, 0).reshape(24, -1).tolist()):
            decision = cache.lookup(layer, accesses)
            hits += len(decision.hits)
            lookups += len(decision.hits) + len(decision.misses)
    assert lookups == 12 * 511 * 24 * 4
    assert hits / lookups == pytest.approx(expected, abs=5e-4)
