"""One run out of several repeats of the same one, as on a machine that is left in peace."""

from collections.abc import Sequence

from offsim.record.events import Load, RunRecord, Span, StepRecord, Wait


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
        step = moved(ordered[(len(ordered) - 1) // 4], now)
        now = step.end
        chosen.append(step)
    return RunRecord(records[0].label, chosen)


def moved(step: StepRecord, start: float) -> StepRecord:
    """A copy of a step that starts at another time, s."""
    by = start - step.start
    loads = {
        id(load): Load(
            load.layer,
            load.expert,
            load.link_bytes,
            load.submitted + by,
            [Span(span.stage, span.start + by, span.end + by) for span in load.spans],
        )
        for load in step.loads
    }
    return StepRecord(
        step.request,
        step.phase,
        start,
        step.end + by,
        list(step.decisions),
        list(loads.values()),
        [Wait(wait.start + by, wait.end + by, loads[id(wait.load)]) for wait in step.waits],
    )
