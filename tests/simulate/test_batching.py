from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.errors import InputError
from offsim.simulate.batching import Batch, Batcher, Batching
from offsim.trace import DECODE, PREFILL, Trace
from tests.simulate.traffic import lengths, requests_of

# Rows of the first request: 0-2 prompt, 3 and 4 decode; second: 5-8 and 9; third: 10 and 11.
THREE = requests_of([(3, 2), (4, 1), (0, 2)])


def shown(batch: Batch) -> tuple[list[int], list[int], list[int], int]:
    return batch.rows.tolist(), batch.requests, batch.emits, batch.phase


def test_chunks_and_room_by_hand() -> None:
    batcher = Batcher(THREE, [0, 5, 5], Batching(max_batch=2, prompt_tokens=2))
    assert batcher.requests.tolist() == [0, 10, 20]
    steps = [shown(batcher.step(now)) for now in (0, 10, 20, 30, 40, 50)]
    assert steps == [
        ([0, 1], [0], [], PREFILL),
        ([2, 5], [0, 1], [0], PREFILL),  # the second has arrived; the third finds no room
        ([3, 6, 7], [0, 1], [0], PREFILL),
        ([4, 8], [0, 1], [0, 1], PREFILL),  # the first is done
        ([9, 10], [1, 2], [1, 2], DECODE),
        ([11], [2], [2], DECODE),
    ]
    assert batcher.begin(60) is None


def test_whole_prompts_come_after_decode_tokens() -> None:
    batcher = Batcher(THREE, [0, 1, 1], Batching(max_batch=3))
    assert shown(batcher.step(0)) == ([0, 1, 2], [0], [0], PREFILL)
    # The third has no prompt: its first row is a decode row, and it was let in last.
    assert shown(batcher.step(1)) == ([3, 10, 5, 6, 7, 8], [0, 2, 1], [0, 2, 1], PREFILL)
    assert shown(batcher.step(2)) == ([4, 9, 11], [0, 1, 2], [0, 1, 2], DECODE)
    assert batcher.begin(3) is None


def test_who_arrives_first_is_served_first() -> None:
    batcher = Batcher(THREE, [30, 20, 10], Batching(max_batch=1))
    assert batcher.begin(0) == 10
    order = []
    now = 0
    while (begin := batcher.begin(now)) is not None:
        order += batcher.step(begin).rows.tolist()
        now = begin + 100
    assert order == [10, 11, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_nobody_is_let_in_within_a_step() -> None:
    batcher = Batcher(THREE, [0, 1, 100], Batching())
    assert shown(batcher.step(0)) == ([0, 1, 2], [0], [0], PREFILL)  # 1 ps too early for the second
    assert batcher.begin(7) == 7
    assert shown(batcher.step(7))[1] == [0, 1]
    batcher.step(8)
    assert batcher.begin(9) == 100
    with pytest.raises(ValueError, match="no request is there at 99 ps"):
        batcher.step(99)


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"prompt_tokens": 0}, {"prompt_tokens": -1}])
def test_what_lets_nobody_on_is_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is {wrong[name]}; at least 1 is needed"):
        Batching(**wrong)


@st.composite
def traffic(draw: st.DrawFn) -> tuple[Trace, list[int], Batching]:
    sizes = draw(lengths())
    arrival = draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)))
    chunk = draw(st.one_of(st.none(), st.integers(1, 6)))
    return requests_of(sizes), arrival, Batching(draw(st.integers(1, 4)), chunk)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(traffic(), st.lists(st.integers(0, 3), min_size=1))
def test_what_always_holds(case: tuple[Trace, list[int], Batching], durations: list[int]) -> None:
    trace, arrival, batching = case
    batcher = Batcher(trace, arrival, batching)
    seen: list[int] = []
    tokens: dict[int, int] = dict.fromkeys(range(len(arrival)), 0)
    now = number = 0
    while (begin := batcher.begin(now)) is not None:
        assert begin >= now
        batch = batcher.step(begin)
        _check_step(trace, arrival, batching, begin, batch)
        for one in batch.emits:
            tokens[one] += 1
        seen += batch.rows.tolist()
        now = begin + durations[number % len(durations)]
        number += 1
    assert sorted(seen) == list(range(trace.tokens))  # each once
    for one, request in enumerate(batcher.requests):
        rows = np.flatnonzero(trace.request == request)
        assert [row for row in seen if row in rows] == rows.tolist()  # and in order
        prompt = (trace.phase[rows] == PREFILL).any()
        assert tokens[one] == int((trace.phase[rows] == DECODE).sum()) + int(prompt)


def _check_step(
    trace: Trace, arrival: list[int], batching: Batching, begin: int, batch: Batch
) -> None:
    phases: Any = trace.phase[batch.rows]
    prompt_rows = int((phases == PREFILL).sum())
    assert len(set(batch.requests)) == len(batch.requests) <= batching.max_batch
    assert all(arrival[one] <= begin for one in batch.requests)
    assert set(batch.emits) <= set(batch.requests)
    assert prompt_rows <= (batching.prompt_tokens or prompt_rows)
    assert batch.phase == (PREFILL if prompt_rows else DECODE)
    assert (np.diff(phases.astype(int)) <= 0).all()  # decode tokens first
    decoding = trace.request[batch.rows[phases == DECODE]]
    assert len(set(decoding.tolist())) == len(decoding)  # one of each
    assert not set(decoding.tolist()) & set(trace.request[batch.rows[phases == PREFILL]].tolist())
