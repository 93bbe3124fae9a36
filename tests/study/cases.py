"""Small cases whose times are known by hand."""

from typing import Any

from offsim.calibration.schema import CodecFigures
from offsim.policy.policy import Policy
from offsim.study.case import Case
from offsim.trace import Trace
from tests.builders import calibration, codec_figures, trace_of

ALTERNATING = trace_of([[[step % 2]] * 3 for step in range(5)])
"""One slot a layer misses in every layer of every step."""


def case(
    trace: Trace = ALTERNATING,
    *codecs: CodecFigures,
    link: float | None = 1000.0,
    model: dict[str, int] | None = None,
    **policy: Any,
) -> Case:
    """A token computes for 6 s; raw experts of 1000 B take 1 s each on the link."""
    figures = calibration(*(codecs or (codec_figures(),)))
    changed = figures.model.model_copy(update=model or {})
    return Case(
        trace,
        Policy(**{"slots": 1, **policy}),
        figures.model_copy(update={"model": changed}),
        link,
    )
