"""From runs to what a disk beneath host memory and experts on the host take."""

import math
from collections.abc import Iterator, Sequence

from offsim.calibration.fit import figure, line
from offsim.calibration.measure import NEAR, by_size
from offsim.calibration.schema import DiskFigures
from offsim.record import Load, RunRecord
from offsim.record.events import Stage

Sample = tuple[int, float]
"""How much, in bytes or tokens, and what it took, s."""


def reads(record: RunRecord) -> Iterator[Sample]:
    """Bytes of each blob that a run read from disk, and what that took, s."""
    for load, seconds in _served(record, "disk"):
        yield load.disk_bytes, seconds


def hosted(record: RunRecord, token_bytes: int) -> Iterator[Sample]:
    """Tokens of each expert that the host computed in a run, and what that took, s.

    Args:
        record: of the run.
        token_bytes: that cross the link for a token, there and back.
    """
    for load, seconds in _served(record, "host compute"):
        yield load.link_bytes // token_bytes, seconds


def disk_figures(samples: Sequence[Sample]) -> DiskFigures:
    """A line through the reads of blobs.

    Args:
        samples: bytes and s of each, at least one. Where all blobs are about as large, or larger
            ones take no longer, latency and bandwidth cannot be told apart: all of it counts as
            bandwidth then.
    """
    points = by_size(samples)
    latency, bandwidth, residual = line(points)
    if points[-1].size < NEAR * points[0].size or math.isinf(bandwidth):
        rate = figure([seconds / nbytes for nbytes, seconds in samples]).value
        latency, bandwidth = 0.0, 1 / rate
        residual = max(abs(rate * point.size / point.seconds.value - 1) for point in points)
    return DiskFigures(
        label="MEASURED", latency_s=latency, bytes_per_s=bandwidth, residual=residual
    )


def _served(record: RunRecord, stage: Stage) -> Iterator[tuple[Load, float]]:
    for step in record.steps:
        for load in step.loads:
            for span in load.spans:
                if span.stage == stage:
                    yield load, span.end - span.start
