"""What loads take, many at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.simulate.clock import whole
from offsim.simulate.loads import DEVICE_DECODE, HOST_DECODE, LINK, Lane, sorted_rows, wholes
from tests.builders import calibration

LINK_FIGURES = calibration().link.model_copy(update={"latency_s": 0.5, "bytes_per_s": 1000.0})


def test_a_load_moves_in_equal_parts_at_the_slower_pace() -> None:
    lane = Lane(LINK_FIGURES, 500.0, 300)
    nbytes = np.array([0, 300, 301, 3000])
    assert lane.chunks(nbytes).tolist() == [1, 1, 2, 10]
    assert lane.transfer_s(nbytes).tolist() == [0.5, 0.8, 2 * (0.5 + 150.5 / 1000), 10 * 0.8]
    assert Lane(LINK_FIGURES, None, None).transfer_s(nbytes)[-1] == 3.5


def test_further_chunks_count_as_far_as_decoding_goes_on_beside_the_link() -> None:
    lane = Lane(LINK_FIGURES, None, 300)
    nbytes, decode_s = np.array([600, 600]), np.array([0.4, 16.0])  # 1.6 s over the link
    seconds = lane.stages_s(nbytes, decode_s, None, 0.1)
    assert seconds[:, LINK].tolist() == [1.6, 1.6]
    assert seconds[:, DEVICE_DECODE].tolist() == pytest.approx([0.4 + 0.1 / 4, 16.1])


def test_a_host_decodes_before_the_link() -> None:
    lane = Lane(LINK_FIGURES, None, None)
    seconds = lane.stages_s(np.array([500]), np.array([2.0]), np.array([0.25]), 0.1)
    assert seconds[0, [HOST_DECODE, LINK, DEVICE_DECODE]].tolist() == [2.0, 1.0, 0.25]


@given(st.lists(st.floats(0, 9e6)))
def test_whole_numbers_are_those_of_the_clock(seconds: list[float]) -> None:
    assert wholes(np.array(seconds)).tolist() == list(map(whole, seconds))


@pytest.mark.parametrize("seconds", [1e7, 1e300, np.inf])
def test_what_the_clock_cannot_hold_overflows(seconds: float) -> None:
    with pytest.raises(OverflowError, match="more than the clock can hold"):
        wholes(np.array([1.0, seconds]))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_rows_are_sorted_as_tuples_are(rows: list[tuple[int, int]]) -> None:
    distinct, which = sorted_rows(np.array(rows))
    assert [tuple(row) for row in distinct.tolist()] == sorted(set(rows))
    assert distinct[which].tolist() == [list(row) for row in rows]
