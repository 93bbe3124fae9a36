import pytest

from offsim.calibration.measure import by_size
from offsim.calibration.placed import disk_figures, hosted, reads
from offsim.record import Load, RunRecord, Span, StepRecord


def record() -> RunRecord:
    """One load from disk over the link, and two experts on the host: of one token and of three."""
    there = [Span("disk", 1.0, 1.25), Span("link", 1.25, 2.0)]
    steps = [
        StepRecord(0, 0, 0.0, loads=[Load(0, 1, 900, 0.5, there, disk_bytes=1000)]),
        StepRecord(
            0,
            1,
            3.0,
            loads=[
                Load(0, 2, 64, 3.0, [Span("host compute", 3.0, 3.5), Span("link", 3.5, 3.6)]),
                Load(1, 2, 192, 4.0, [Span("host compute", 4.0, 5.0)]),
            ],
        ),
    ]
    return RunRecord("MEASURED", steps)


def test_only_what_was_served_there_is_a_sample() -> None:
    assert list(reads(record())) == [(1000, 0.25)]
    assert list(hosted(record(), 64)) == [(1, 0.5), (3, 1.0)]


def test_a_line_is_found_through_blobs_of_different_sizes() -> None:
    samples = [(size, 1e-4 + size / 2e9) for size in (20_000, 100_000) for _ in range(12)]
    disk = disk_figures(samples)
    assert disk.latency_s == pytest.approx(1e-4)
    assert disk.bytes_per_s == pytest.approx(2e9)
    assert disk.residual == pytest.approx(0, abs=1e-6)
    assert disk.label == "MEASURED"


@pytest.mark.parametrize("samples", [[(1000, 1e-3)], [(1000, 1e-3), (1200, 1e-3), (1000, 1.2e-3)]])
def test_blobs_that_are_alike_say_no_latency(samples: list[tuple[int, float]]) -> None:
    disk = disk_figures(samples)
    assert disk.latency_s == 0
    assert 9e5 < disk.bytes_per_s < 1.3e6


def test_larger_blobs_that_take_no_longer_say_no_bandwidth_beyond_bounds() -> None:
    disk = disk_figures([(1000, 1e-3)] * 12 + [(10_000, 1e-3)] * 12)
    assert disk.latency_s == 0
    assert 1e6 < disk.bytes_per_s < 1e7
    assert disk.residual > 0.5


def test_the_host_computes_by_tokens() -> None:
    table = by_size([(1, 0.5)] * 12 + [(16, 1.0)] * 12)
    assert [(one.size, one.seconds.value) for one in table] == [(1, 0.5), (16, 1.0)]
