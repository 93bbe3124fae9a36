import numpy as np
import pytest

from offsim.policy.policy import Policy
from offsim.study.working_set import Cliff, WorkingSet, cliff_of, working_sets
from offsim.trace import Trace
from tests.builders import TOY, trace_of

from .cases import ALTERNATING


def by_tokens(sets: list[WorkingSet], layer: int | None) -> dict[int | None, WorkingSet]:
    return {one.tokens: one for one in sets if one.layer == layer}


def test_two_experts_in_turn() -> None:
    sets = working_sets(ALTERNATING)
    for layer in (None, 0, 1, 2):
        found = by_tokens(sets, layer)
        assert {tokens: one.median for tokens, one in found.items()} == {None: 1, 1: 1, 2: 2, 4: 2}
    assert [one.layer for one in sets[:4]] == [None] * 4
    assert {one.phase for one in sets if one.tokens is None} == {"prefill"}


def test_layers_are_counted_for_themselves_and_together() -> None:
    sets = working_sets(TOY)
    assert by_tokens(sets, 0)[2] == WorkingSet("decode", 2, 0, 2.0, pytest.approx(2.9), 3)
    assert by_tokens(sets, 2)[2].largest == 3  # 3 0, then 0 1
    assert by_tokens(sets, 1)[4].largest == 4  # 2 3, then 0 1
    assert by_tokens(sets, None)[4].median == 3.0


def test_windows_do_not_reach_over_requests() -> None:
    arrays = trace_of([[[0]], [[1]], [[2]], [[3]]]).arrays()
    request = np.array([0, 0, 1, 1], np.int32)
    phase = np.ones(4, np.uint8)
    position = np.array([0, 1, 0, 1], np.int32)
    changed = {**arrays, "request": request, "phase": phase, "position": position}
    found = by_tokens(working_sets(Trace(TOY.info, **changed)), None)
    assert set(found) == {1, 2}
    assert found[2].median == 2


@pytest.mark.parametrize(
    ("slots", "cliff"), [(1, Cliff(3, 6)), (2, Cliff(6, 6)), (3, None), (0, Cliff(0, 6))]
)
def test_one_lru_pool_below_the_cycle(slots: int, cliff: Cliff | None) -> None:
    assert cliff_of(Policy(slots=slots, scope="global"), TOY) == cliff
    assert cliff_of(Policy(slots=slots), TOY) is None
    assert cliff_of(Policy(slots=slots, scope="global", cache="lfu"), TOY) is None
    assert cliff_of(Policy(slots=slots, scope="global", keep="compressed"), TOY) is None


def test_the_cliff_ends_at_the_cycle() -> None:
    assert Cliff(5, 6).below
    assert not Cliff(6, 6).below
