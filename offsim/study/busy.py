"""How busy each resource of a run was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.record import RunRecord, StepRecord
from offsim.record.events import STAGES
from offsim.trace import DECODE, PREFILL

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Busy:
    """Share of the time in which a resource worked on at least one thing, 0..1.

    Attributes:
        resource: compute, or a stage of the loads.
        total: of the makespan.
        prefill: of the time of prompt passes; nan without one.
        decode: of the time of decode steps; nan without one.
    """

    resource: str
    total: float
    prefill: float
    decode: float


def busy_of(record: RunRecord) -> list[Busy]:
    """Compute, then each stage that a load went through.

    A load that moves in chunks counts from its first chunk to its last.
    """
    steps = {phase: [s for s in record.steps if s.phase == phase] for phase in (PREFILL, DECODE)}
    first, last = record.steps[0].start, record.steps[-1].end
    waited = sum(map(_waited, record.steps))
    found = [
        Busy(
            "compute",
            _share(sum(s.end - s.start for s in record.steps) - waited, last - first),
            *(_share(*_computing(steps[phase])) for phase in (PREFILL, DECODE)),
        )
    ]
    for stage in STAGES:
        spans = [
            (span.start, span.end)
            for step in record.steps
            for load in step.loads
            for span in load.spans
            if span.stage == stage and span.end > span.start
        ]
        if spans:
            times, served = _served(np.array(spans))
            total = _within(times, served, [(first, last)])
            parts = (
                _within(times, served, [(s.start, s.end) for s in steps[phase]])
                for phase in (PREFILL, DECODE)
            )
            found.append(Busy(stage, total, *parts))
    return found


def _waited(step: StepRecord) -> float:
    return sum(wait.end - wait.start for wait in step.waits)


def _computing(steps: Sequence[StepRecord]) -> tuple[float, float]:
    """Time in which compute worked, and all time, s."""
    spent = sum(step.end - step.start for step in steps)
    return spent - sum(map(_waited, steps)), spent


def _served(spans: Floats) -> tuple[Floats, Floats]:
    """The ends of the union of spans [n, 2], and how much of it lies before each, s."""
    ordered = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    begins = np.append(True, ordered[1:, 0] > reach[:-1])
    starts = ordered[begins, 0]
    ends = reach[np.append(np.flatnonzero(begins)[1:] - 1, len(reach) - 1)]
    before = np.concatenate(([0.0], np.cumsum(ends - starts)))
    return np.column_stack((starts, ends)).ravel(), np.repeat(before, 2)[1:-1]


def _within(times: Floats, served: Floats, stretches: Sequence[tuple[float, float]]) -> float:
    """Share of some stretches of time that lies in the union."""
    ends = np.array(stretches).reshape(-1, 2)
    inside = np.diff(np.interp(ends, times, served), axis=1)
    return _share(float(inside.sum()), float(np.diff(ends, axis=1).sum()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
