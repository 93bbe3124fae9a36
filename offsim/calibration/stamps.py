"""From the time stamps of a run to what compute and hand-over cost."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import fmean

from offsim.calibration.fit import figure
from offsim.calibration.measure import by_size
from offsim.calibration.schema import ComputeFigures, CoolingPoint, HandoverFigures
from offsim.record import RunRecord
from offsim.record.times import LayerTimes, StepTimes

Observed = tuple[RunRecord, Sequence[StepTimes]]
"""What a run gave: its record and its time stamps."""


def compute_figures(times: Sequence[StepTimes], missing: Sequence[Observed]) -> ComputeFigures:
    """Costs of compute.

    Args:
        times: stamps of steps in which every expert was resident; layers in which something was
            loaded are left out.
        missing: runs in which every expert was missing, each on a link of another pace.
    """
    first, dense, head = [], [], []
    for step in times:
        layers = step.layers
        first.append((step.tokens, layers[0].enter - step.start))
        for before, after in pairwise(layers):
            dense.append((step.tokens, after.enter - before.leave))
        head.append((step.tokens, step.end - layers[-1].leave))
    resident = [layer for step in times for layer in step.layers if not layer.misses]
    dispatch = [(layer.tokens, _dispatch(layer)) for layer in resident]
    expert = [(n, end - start) for layer in resident for n, start, end in layer.experts]
    warm_dense = figure([s for n, s in dense if n == 1]).value
    warm_expert = figure([s for n, s in expert if n == 1]).value
    return ComputeFigures(
        first=by_size(first),
        dense=by_size(dense),
        head=by_size(head),
        dispatch=by_size(dispatch),
        expert=by_size(expert),
        dense_cooling=_points(_dense_after_idle(seen, warm_dense) for seen in missing),
        expert_cooling=_points(_experts_after_idle(seen, warm_expert) for seen in missing),
    )


def _points(groups: Iterable[list[tuple[float, float]]]) -> list[CoolingPoint]:
    """A point for each group of (idle, extra), by rising idle time."""
    points = [
        CoolingPoint(idle_s=fmean(idle for idle, _ in g), extra=figure([e for _, e in g]))
        for g in groups
        if g
    ]
    return sorted(points, key=lambda point: point.idle_s)


def _dense_after_idle(seen: Observed, warm_s: float) -> list[tuple[float, float]]:
    """Idle time in a decode layer, and by how much the dense part after it was longer, s."""
    samples = []
    for record, times in zip(seen[0].steps, seen[1], strict=True):
        idle = [0.0] * len(times.layers)
        for wait in record.waits:
            idle[wait.load.layer] += wait.end - wait.start
        if times.tokens == 1:
            for layer, (before, after) in enumerate(pairwise(times.layers)):
                samples.append((idle[layer], after.enter - before.leave - warm_s))
    return samples


def _experts_after_idle(seen: Observed, warm_s: float) -> list[tuple[float, float]]:
    """Length of a wait in a decode layer, and by how much its expert was longer, s."""
    samples = []
    for record, times in zip(seen[0].steps, seen[1], strict=True):
        if times.tokens == 1:
            ran = {start: end for layer in times.layers for _, start, end in layer.experts}
            starts = sorted(ran)
            for wait in record.waits:
                start = starts[bisect_left(starts, wait.end)]
                samples.append((wait.end - wait.start, ran[start] - start - warm_s))
    return samples


def handover_figures(missing: Sequence[Observed], asking_nothing_s: float) -> HandoverFigures:
    """What threads lose when one wakes the other.

    Args:
        missing: runs in which every expert was missing; for the start only the first load of a
            layer is used, which finds the pipeline idle.
        asking_nothing_s: from the call of the experts to `asked` where nothing is missing, s.
    """
    layers = [layer for _, times in missing for step in times for layer in step.layers]
    submit = [(layer.asked - layer.enter - asking_nothing_s) / layer.misses for layer in layers]
    start, between, wake = [], [], []
    for step in (step for record, _ in missing for step in record.steps):
        for number, load in enumerate(step.loads):
            if number == 0 or step.loads[number - 1].layer != load.layer:
                start.append(load.spans[0].start - load.submitted)
            between += [after.start - before.end for before, after in pairwise(load.spans)]
        wake += [wait.end - wait.load.spans[-1].end for wait in step.waits]
    return HandoverFigures(
        submit_s=figure(submit),
        start_s=figure(start),
        between_s=figure(between),
        wake_s=figure(wake),
    )


def asking_nothing(times: Sequence[StepTimes]) -> Iterator[float]:
    """Seconds from the call of the experts to `asked`, of decode layers without a miss."""
    for step in times:
        for layer in step.layers:
            if layer.tokens == 1 and not layer.misses:
                yield layer.asked - layer.enter


def _dispatch(layer: LayerTimes) -> float:
    return (layer.leave - layer.enter) - sum(end - start for _, start, end in layer.experts)
