import pytest

from offsim.calibration.fit import figure, line, undisturbed_rounds
from offsim.calibration.measure import by_size
from tests.builders import sized


def test_a_figure_leaves_rare_pauses_out() -> None:
    made = figure([1.0] * 14 + [0.0] + [100.0] * 5)
    assert made.value == 1.0
    assert (made.p10, made.p90) == (1.0, 100.0)
    assert made.samples == 20
    assert made.label == "MEASURED"


def test_the_faster_half_of_the_rounds_is_kept() -> None:
    assert undisturbed_rounds([5.0, 1.0, 4.0, 2.0, 3.0], abs) == [1.0, 2.0, 3.0]
    assert undisturbed_rounds([2.0, 1.0], abs) == [1.0]
    assert undisturbed_rounds([7.0], abs) == [7.0]


def test_a_line_is_found_again() -> None:
    points = sized(*((size, 2e-6 + size / 5e9) for size in (1000, 10_000, 100_000, 1_000_000)))
    latency, bandwidth, residual = line(points)
    assert latency == pytest.approx(2e-6)
    assert bandwidth == pytest.approx(5e9)
    assert residual < 1e-9


def test_a_line_is_never_negative() -> None:
    latency, bandwidth, residual = line(sized((1000, 1e-9), (2000, 4e-9)))
    assert latency >= 0
    assert bandwidth > 0
    assert residual > 0


def test_neighbouring_sizes_are_put_together_until_there_are_enough() -> None:
    table = by_size([(1, 1.0)] * 12 + [(20, 2.0)] * 6 + [(24, 4.0)] * 6 + [(26, 9.0)])
    assert [(p.size, p.seconds.samples) for p in table] == [(1, 12), (22, 13)]


def test_sizes_far_apart_are_never_put_together() -> None:
    """A prompt would be taken for a token, and a token for a part of a prompt."""
    table = by_size([(1, 1.0)] * 40 + [(40, 9.0), (50, 9.0), (100, 20.0)])
    assert [(p.size, p.seconds.samples) for p in table] == [(1, 40), (45, 2), (100, 1)]
