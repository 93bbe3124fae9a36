"""From samples to figures."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from scipy.optimize import nnls

from offsim.calibration.schema import Figure, SizedFigure

TRIM = 0.25
"""Share of the samples cut off at each end before the mean is taken."""
OUTLIER = 3.0
"""A sample of so many times the median was interrupted by something else."""

Round = TypeVar("Round")


def undisturbed_rounds(rounds: Sequence[Round], seconds: Callable[[Round], float]) -> list[Round]:
    """The faster half of the rounds (the larger half of an odd number).

    What else runs on a shared machine slows it for seconds at a time; it never makes it faster.

    Args:
        rounds: of one measurement.
        seconds: how long a round took by something that is the same in each, s.
    """
    return sorted(rounds, key=seconds)[: (len(rounds) + 1) // 2]


def figure(samples: Sequence[float]) -> Figure:
    """A measured figure: the mean of the middle half of the samples, and their spread.

    Not the median, because the time of a token is a sum of many such times, and a mean is closer
    to additive; not the mean, because a shared machine is slow for seconds at a time.

    Args:
        samples: seconds, at least one.
    """
    ordered = np.sort(np.asarray(samples, float))
    cut = int(len(ordered) * TRIM)
    kept = ordered[cut : len(ordered) - cut]
    p10, p90 = np.percentile(ordered, (10, 90))
    return Figure(
        label="MEASURED",
        value=max(0.0, float(kept.mean())),
        p10=max(0.0, float(p10)),
        p90=max(0.0, float(p90)),
        samples=len(ordered),
    )


def summed(samples: Sequence[float]) -> Figure:
    """A figure of what is waited for in a row: the mean of all samples that nothing interrupted.

    What a queue takes is a sum, to which the slow ones add as much as they are slower.

    Args:
        samples: seconds, at least one.
    """
    kept = np.asarray(samples, float)
    kept = kept[kept <= OUTLIER * np.median(kept)]
    return figure(samples).model_copy(update={"value": float(kept.mean())})


def line(points: Sequence[SizedFigure]) -> tuple[float, float, float]:
    """Fit seconds = latency + bytes / bandwidth by relative least squares, both non-negative.

    Returns:
        Latency (s), bandwidth (bytes/s), largest relative error over the points.
    """
    sizes = np.array([point.size for point in points], float)
    seconds = np.array([point.seconds.value for point in points])
    terms = np.column_stack((np.ones_like(sizes), sizes))
    (latency, per_byte), _ = nnls(terms / seconds[:, None], np.ones_like(seconds))
    residual = np.abs(terms @ (latency, per_byte) / seconds - 1).max()
    return float(latency), float(1 / per_byte) if per_byte else np.inf, float(residual)
