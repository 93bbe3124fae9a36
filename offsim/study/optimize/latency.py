"""A latency that was predicted and measured."""

from collections.abc import Sequence

import numpy as np

from offsim.policy.bounds import Strict
from offsim.study.check import Checked


class Both(Strict):
    """A latency, s.

    Attributes:
        simulated: SIMULATED.
        measured: MEASURED, of the typical run.
        low, high: ends of the band around the simulated one; None where the calibration has none.
        repeats: MEASURED, of each run; runs of one number lie side by side.
    """

    simulated: float
    measured: float
    low: float | None = None
    high: float | None = None
    repeats: list[float]


def both_of(one: Checked, metric: str) -> Both:
    """A metric of what was checked.

    Args:
        one: predicted and run.
        metric: a field of `offsim.record.Metrics`, s.
    """
    band = one.band.get(metric)
    return Both(
        simulated=getattr(one.predicted, metric),
        measured=getattr(one.measured, metric),
        low=None if band is None else band.low,
        high=None if band is None else band.high,
        repeats=[getattr(metrics, metric) for metrics in one.repeats],
    )


def mean_of(several: Sequence[Both]) -> Both:
    """The mean of latencies that were run equally often.

    Its band is the mean of their ends, as if all were off to one side together: wide rather than
    narrow.
    """
    lows = [one.low for one in several if one.low is not None]
    highs = [one.high for one in several if one.high is not None]
    known = len(lows) == len(highs) == len(several)
    return Both(
        simulated=float(np.mean([one.simulated for one in several])),
        measured=float(np.mean([one.measured for one in several])),
        low=float(np.mean(lows)) if known else None,
        high=float(np.mean(highs)) if known else None,
        repeats=np.mean([one.repeats for one in several], axis=0).tolist(),
    )
