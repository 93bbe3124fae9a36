import math

import pytest

from offsim.record import Load, RunRecord, Span, StepRecord, Wait
from offsim.study.busy import Busy, busy_of
from offsim.trace import DECODE, PREFILL

from .cases import case


def test_alternating_experts() -> None:
    compute, link = busy_of(case().record())
    assert compute.resource == "compute"
    assert link.resource == "link"
    for share in (compute.total, compute.prefill, compute.decode):
        assert share == pytest.approx(6 / 9)
    for share in (link.total, link.prefill, link.decode):
        assert share == pytest.approx(3 / 9)


def test_what_overlaps_counts_once_and_where_it_happens() -> None:
    loads = [
        Load(0, 0, 1, 0.0, [Span("link", 1.0, 3.0)]),
        Load(0, 1, 1, 0.0, [Span("link", 2.0, 6.0), Span("device decode", 6.0, 6.0)]),
        Load(0, 2, 1, 0.0, [Span("link", 8.0, 9.0)]),
    ]
    first = StepRecord(0, PREFILL, 0.0, 4.0, loads=loads, waits=[Wait(0.0, 3.0, loads[0])])
    second = StepRecord(0, DECODE, 4.0, 10.0, waits=[Wait(8.0, 9.0, loads[2])])
    found = busy_of(RunRecord("SIMULATED", [first, second]))
    assert found == [
        Busy("compute", pytest.approx(0.6), pytest.approx(0.25), pytest.approx(5 / 6)),
        Busy("link", pytest.approx(0.6), pytest.approx(0.75), pytest.approx(0.5)),
    ]


def test_a_phase_that_is_not_there_is_nan() -> None:
    (compute,) = busy_of(RunRecord("SIMULATED", [StepRecord(0, DECODE, 0.0, 1.0)]))
    assert compute.decode == 1.0
    assert math.isnan(compute.prefill)
