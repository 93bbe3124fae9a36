"""A run as numbers a step, in whole picoseconds: what the metrics are computed from."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.record.events import STAGES, RunRecord, StepRecord
from offsim.record.stall import NEVER, split_ps
from offsim.trace.format import DECODE

PS = 10**12
"""Picoseconds in a second."""
Ints = npt.NDArray[np.int64]


class StepTable(NamedTuple):
    """Columns with a row a step, then what is known of output tokens and requests. Times in ps.

    Attributes:
        start: [steps]
        end: [steps] when its tokens were known.
        decode: [steps] whether it is of decode tokens alone, bool.
        stall: [steps, stages + 1] compute waited for each stage; the last is the hand-over.
        lookups: [steps] distinct experts asked for.
        hits: [steps] of them on the device.
        late: [steps] of them on their way there as prefetches.
        again: [steps] of the hits decoded for this use, which were there as blobs alone.
        demand_bytes: [steps] over the link, of what was missed.
        prefetch_bytes: [steps] over the link, of what was fetched ahead.
        wasted_bytes: [steps] of these, what nobody asked for before it had to leave.
        disk_bytes: [steps] read from disk, of both.
        emit_step: [output tokens] the step that each token came from.
        emit_request: [output tokens] whose it is: an index in `arrival`.
        arrival: [requests]
    """

    start: Ints
    end: Ints
    decode: npt.NDArray[np.bool_]
    stall: Ints
    lookups: Ints
    hits: Ints
    late: Ints
    again: Ints
    demand_bytes: Ints
    prefetch_bytes: Ints
    wasted_bytes: Ints
    disk_bytes: Ints
    emit_step: Ints
    emit_request: Ints
    arrival: Ints


def whole(seconds: float) -> int:
    """Seconds as picoseconds, rounded; exact for a time that was whole, below 4,000 s."""
    return round(seconds * PS)


def table_of(record: RunRecord) -> StepTable:
    """The steps of a record.

    A request arrives when the record says, or else when its first step starts.

    Raises:
        ValueError: the record has no step.
    """
    steps = record.steps
    if not steps:
        raise ValueError("a record without a step has no metrics")
    emits = [(number, request) for number, step in enumerate(steps) for request in step.emitting]
    arrivals = dict(record.arrivals)
    for step in steps:
        for request in step.emitting:
            arrivals.setdefault(request, step.start)
    place = {request: at for at, request in enumerate(arrivals)}
    again, demand, ahead, wasted, disk = (np.zeros(len(steps), np.int64) for _ in range(5))
    for number, step in enumerate(steps):
        for load in step.loads:
            (ahead if load.ahead else demand)[number] += load.link_bytes
            again[number] += not load.link_bytes
            disk[number] += load.disk_bytes
            if load.ahead and not load.used:
                wasted[number] += load.link_bytes
    hits = np.array([sum(len(d.hits) for d in s.decisions) for s in steps], np.int64)
    misses = np.array([sum(len(d.misses) for d in s.decisions) for s in steps], np.int64)
    late = np.array([step.late for step in steps], np.int64)
    return StepTable(
        start=np.array([whole(step.start) for step in steps], np.int64),
        end=np.array([whole(step.end) for step in steps], np.int64),
        decode=np.array([step.phase == DECODE for step in steps]),
        stall=np.array([_stall(step) for step in steps], np.int64),
        lookups=hits + misses,
        hits=hits - late,
        late=late,
        again=again,
        demand_bytes=demand,
        prefetch_bytes=ahead,
        wasted_bytes=wasted,
        disk_bytes=disk,
        emit_step=np.array([step for step, _ in emits], np.int64),
        emit_request=np.array([place[request] for _, request in emits], np.int64),
        arrival=np.array([whole(seconds) for seconds in arrivals.values()], np.int64),
    )


def _stall(step: StepRecord) -> list[int]:
    """Waits of a step by stage, ps."""
    parts = [0] * (len(STAGES) + 1)
    for wait in step.waits:
        ends = [NEVER] * len(STAGES)
        for span in wait.load.spans:
            ends[STAGES.index(span.stage)] = whole(span.end)
        split_ps(whole(wait.start), whole(wait.end), ends, parts)
    return parts
