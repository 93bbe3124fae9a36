"""Residual noise: how far single times are from the calibrated ones, drawn from their spread."""

import math
from collections.abc import Sequence

import numpy as np

from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    Figure,
    HandoverFigures,
    SizedFigure,
)
from offsim.record.events import STAGES

Z90 = 1.2815515655446004
"""The standard normal quantile of 0.9."""
FIGURES = {
    "first": "first",
    "before": "dense",
    "expert": "expert",
    "kept expert": "expert",
    "head": "head",
}
"""What compute does, and the table of the calibration that has its spread."""


class Noise:
    """Draws factors, in the order in which it is asked.

    A time is the calibrated value times 10^x, of which x is normal on each side of 0, so that a
    tenth of the times lie below p10 and a tenth above p90: the value itself stays the median. A
    side of which the calibration shows no spread has none. Draws are independent, which slow
    spells of a real machine are not: what noise says of p95 and p99 is a lower bound. Hand-overs,
    which to the engines are the machine's, are drawn once for a simulation. Reads from disk have
    no spread in a calibration.

    Args:
        calibration: that has the spreads.
        codecs: of the loads, and of those that come coarse where there are some.
        seed: the same seed draws the same.
    """

    def __init__(self, calibration: Calibration, codecs: Sequence[CodecFigures], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._once = np.random.default_rng([seed, 1])  # so that the others stay as they are
        self._compute, self._handover = calibration.compute, calibration.handover
        self._stages = [_stages(calibration, codec) for codec in codecs]

    def compute(self, what: str, tokens: int) -> float:
        """Factor of a time of compute, one of FIGURES."""
        table: list[SizedFigure] = getattr(self._compute, FIGURES[what])
        nearest = min(table, key=lambda point: abs(point.size - tokens))
        return _factor(nearest.seconds, self._rng)

    def handover(self) -> HandoverFigures:
        """The hand-overs of a whole simulation."""
        figures = {
            name: figure.model_copy(update={"value": figure.value * _factor(figure, self._once)})
            for name, figure in self._handover
        }
        return self._handover.model_copy(update=figures)

    def load(self, cost: tuple[int, ...], *, coarse: bool = False) -> tuple[int, ...]:
        """`Costs.load` with a factor for each stage; what takes nothing stays so."""
        noisy, figures = [], self._stages[coarse]
        for stage, duration in zip(STAGES, cost[: len(STAGES)], strict=True):
            figure = figures.get(stage)
            factor = 1.0 if figure is None or not duration else _factor(figure, self._rng)
            noisy.append(max(1, round(duration * factor)) if duration else 0)
        return (*noisy, *cost[len(STAGES) :])


def _factor(figure: Figure, rng: np.random.Generator) -> float:
    z = float(rng.standard_normal())
    edge = figure.p10 if z < 0 else figure.p90
    if edge <= 0 or figure.value <= 0 or (edge > figure.value) == (z < 0):
        return 1.0
    return math.exp(abs(z) / Z90 * math.log(edge / figure.value))


def _stages(calibration: Calibration, codec: CodecFigures) -> dict[str, Figure | None]:
    """What has the spread of each stage of a load; None where there is nothing."""
    host = codec.unpack_s is not None
    copies, hosts = calibration.link.copies, calibration.compute.host_expert
    return {
        "host decode": codec.decode_s if host else None,
        "host compute": hosts[len(hosts) // 2].seconds if hosts else None,
        "link": copies[len(copies) // 2].seconds,
        "device decode": codec.unpack_s if host else codec.decode_s,
    }
