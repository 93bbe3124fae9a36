"""Experts that the device keeps as blobs: figures of steps in which all of them were there."""

import pytest

from offsim.calibration.kept import kept_figures
from offsim.record import Load, RunRecord, Span, StepRecord, Wait
from offsim.record.times import LayerTimes, StepTimes
from offsim.trace import DECODE
from tests.builders import sized


def decoding(start: float, end: float) -> Load:
    return Load(0, 0, 0, 0.0, [Span("device decode", start, end)])


def test_decoding_and_experts_are_told_apart_where_they_are_not_side_by_side() -> None:
    step = StepRecord(0, DECODE, 0.0, 20.0)
    step.loads[:] = [decoding(0.0, 2.0), decoding(2.0, 5.0)]
    step.waits[:] = [Wait(0.0, 2.0, step.loads[0]), Wait(4.0, 5.0, step.loads[1])]
    # The first expert works for 2 s of the 3 of the second decoding; the second is undisturbed.
    layer = LayerTimes(1, 0.0, experts=[(1, 2.0, 4.0), (1, 5.0, 6.0)], leave=6.0)
    seen = RunRecord("MEASURED", [step]), [StepTimes(1, 0.0, [layer], 7.0)]
    found = kept_figures([seen], decode_slowdown=2.0)
    assert found.decode_s.value == pytest.approx(2.0)  # both: 2, and 3 less half of 2
    assert found.expert == sized((1, 1.0))
