"""One run out of several repeats of the same one, as on a machine that is left in peace."""

from collections.abc import Sequence
from dataclasses import replace

from offsim.record.events import Load, RunRecord, StepRecord, Wait


def typical(records: Sequence[RunRecord]) -> RunRecord:
    """Of each step the repeat at the first quartile of its duration, put one after the other.

    The steps of repeats do the same work, so what differs between them is the machine, which other
    users can only slow down, and do for seconds at a time. A step is taken whole, with its loads
    and waits. A calibration leaves out the slower half of its rounds for the same reason.

    Args:
        records: of runs of the same steps, at least one.

    Returns:
        A record on a clock that starts at 0.

    Raises:
        ValueError: the records are not of the same steps.
    """
    if len({tuple((s.request, s.phase) for s in record.steps) for record in records}) != 1:
        raise ValueError("repeats of one run have the same steps")
    chosen, now = [], 0.0
    for repeats in zip(*(record.steps for record in records), strict=True):
        ordered = sorted(repeats, key=lambda step: step.end - step.start)
        step = moved(ordered[typical_rank(len(ordered))], now)
        now = step.end
        chosen.append(step)
    return RunRecord(records[0].label, chosen)


def typical_rank(repeats: int) -> int:
    """Which of so many repeats of a step, ordered by duration from 0, is at the first quartile."""
    return (repeats - 1) // 4


def moved(step: StepRecord, start: float) -> StepRecord:
    """A copy of a step that starts at another time, s.

    A wait may be for a load that an earlier step fetched ahead. It keeps the load of its own
    repeat, moved by as much as the wait: a copy that is among the loads of no step, since the
    earlier step may be taken from another repeat and has that load already.
    """
    by = start - step.start
    known = [*step.loads, *(wait.load for wait in step.waits)]
    loads = {id(load): _moved_load(load, by) for load in known}
    return replace(
        step,
        start=start,
        end=step.end + by,
        decisions=list(step.decisions),
        loads=[loads[id(load)] for load in step.loads],
        waits=[Wait(wait.start + by, wait.end + by, loads[id(wait.load)]) for wait in step.waits],
    )


def _moved_load(load: Load, by: float) -> Load:
    spans = [replace(span, start=span.start + by, end=span.end + by) for span in load.spans]
    return replace(load, submitted=load.submitted + by, spans=spans)
