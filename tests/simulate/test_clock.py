from hypothesis import given
from hypothesis import strategies as st

from offsim.simulate.clock import PS, coldness, rate_of, served, stretched, whole

DURATIONS = st.integers(0, 500 * PS)
RATES = st.floats(1, 50).map(rate_of)


@given(DURATIONS, RATES)
def test_what_was_to_end_has_ended(work: int, rate: int) -> None:
    assert served(stretched(work, rate), rate) >= work
    assert stretched(work, rate) >= work


@given(DURATIONS)
def test_nothing_is_rounded_where_nothing_disturbs(work: int) -> None:
    assert stretched(work, rate_of(1.0)) == served(work, rate_of(1.0)) == work


@given(st.integers(0, 4000 * PS))
def test_seconds_come_back_as_the_same_picoseconds(time: int) -> None:
    assert whole(time / PS) == time


def test_coldness_is_linear_between_points_and_fades() -> None:
    points = [0, 100, 300], [0, 40, 60]
    losses = [coldness(0, idle, *points, 0.5) for idle in (0, 50, 100, 200, 300, 1000)]
    assert losses == [0, 20, 40, 50, 60, 60]
    assert coldness(80, 0, *points, 0.5) == 40
    assert coldness(80, 300, *points, 0.5) == 60


def test_a_machine_without_cooling_is_never_cold() -> None:
    assert coldness(0, 12345, [0], [0], 0.0) == 0
