"""What a link brings, whole and in chunks, and how long it takes."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.runtime.link import Link

PARTS = [np.arange(5, dtype=np.uint8), np.arange(3, dtype=np.uint8), np.arange(9, dtype=np.uint8)]


@pytest.mark.parametrize("pace", [None, 1e6])
def test_what_is_carried_arrives(pace: float | None) -> None:
    arrived, stamps = Link(pace).carry(PARTS)
    assert stamps is None, "the thread that waits knows when"
    assert [part.tolist() for part in arrived] == [part.tolist() for part in PARTS]


def test_a_plain_link_copies_and_a_paced_one_leaves_the_bytes_where_they_are() -> None:
    assert not np.shares_memory(Link().carry(PARTS)[0][0], PARTS[0])
    assert np.shares_memory(Link(1e6).carry(PARTS)[0][0], PARTS[0])


@given(st.lists(st.integers(0, 17), max_size=6), st.sampled_from([None, 1e9]))
def test_chunks_join_to_the_whole(cuts: list[int], pace: float | None) -> None:
    link = Link(pace)
    room = link.room(PARTS)
    if pace is None:
        for part in room:
            part[:] = 255
    borders = [0, *sorted(cuts), 17]
    for begin, end in pairwise(borders):
        link.carry_chunk(PARTS, room, begin, end)
    assert [part.tolist() for part in room] == [part.tolist() for part in PARTS]


def test_a_pace_is_kept() -> None:
    link = Link(17 / 0.02)
    start = time.perf_counter()
    link.carry(PARTS)
    whole = time.perf_counter()
    link.carry_chunk(PARTS, link.room(PARTS), 0, 17)
    assert whole - start >= 0.02
    assert time.perf_counter() - whole >= 0.02


class LateClock:
    """A clock on which who sleeps wakes a second late."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + 1.0


def test_what_waited_is_carried_from_when_the_engine_was_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = LateClock()
    monkeypatch.setattr("offsim.runtime.link.time", clock)
    link = Link(1.0)  # 17 bytes in 17 s
    link.carry(PARTS)
    assert clock.now == 18
    link.carry(PARTS, since=5.0)
    assert clock.now == 17 + 17 + 1, "it is late once, not twice"
    link.carry_chunk(PARTS, PARTS, 0, 10, since=35.0)
    assert clock.now == 35 + 10 + 1, "nothing waited when it was free"
    link.carry_chunk(PARTS, PARTS, 10, 17, since=-math.inf)
    assert clock.now == 45 + 7 + 1
