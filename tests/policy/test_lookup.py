import numpy as np

from offsim.policy.lookup import future_of, lookups_at, lookups_of, popularity_of
from offsim.trace import DECODE, PREFILL, Trace
from tests.builders import TOY, foreseen, trace_of


def test_lookups_of_a_trace() -> None:
    first, second, *_ = lookups_of(TOY)
    assert (first.layer, first.phase, first.accesses) == (0, PREFILL, [0, 1])
    assert first.weights == [0.5, 0.5]
    assert second.wanted() == [(1, 2), (1, 3)]
    assert len(list(lookups_of(TOY))) == 5 * 3
    assert future_of(TOY)[:2] == [[(0, 0), (0, 1)], [(1, 2), (1, 3)]]


def test_popularity_counts_lookups() -> None:
    count = popularity_of(TOY)
    assert count[0, 1] == 5
    assert count[0, 2] == 1
    assert count.total() == 5 * 3 * 2


def test_nothing_is_foreseen_where_nothing_was_predicted() -> None:
    assert all(lookup.lookahead == [] for lookup in lookups_of(TOY))


def test_lookahead_is_that_of_the_next_layers_as_far_as_there_are_some() -> None:
    lookups = list(lookups_of(foreseen(TOY, 2)))
    assert lookups[0].lookahead == [[2, 3], [0, 1]]
    assert lookups[1].lookahead == [[0, 1]]
    assert lookups[2].lookahead == []
    assert lookups[3].lookahead == [[2, 3], [3, 0]]
    far = list(lookups_of(foreseen(TOY, 5)))
    assert [len(lookup.lookahead) for lookup in far[:3]] == [2, 1, 0]


def test_lookahead_of_a_prompt_is_by_token_and_then_by_slot() -> None:
    tokens = trace_of([[[0, 1], [2, 3]], [[1, 2], [3, 1]], [[0, 3], [1, 0]]])
    prompt = Trace(tokens.info, **{**tokens.arrays(), "phase": np.zeros(3, np.uint8)})
    first, second = lookups_of(foreseen(prompt, 1))
    assert first.lookahead == [[2, 3, 3, 1, 1, 0]] == [second.accesses]
    assert second.lookahead == []


def test_rows_of_several_requests_are_one_lookup_a_layer() -> None:
    first, second, third = lookups_at(foreseen(TOY, 1), np.array([4, 0, 1]), DECODE)
    assert (first.layer, first.phase, first.accesses) == (0, DECODE, [0, 1, 0, 1, 1, 2])
    assert first.lookahead == [[0, 1, 2, 3, 2, 3]] == [second.accesses]
    assert (len(third.weights), third.lookahead) == (6, [])
