"""From the time stamps of a run to what compute and hand-over cost."""

from collections.abc import Iterator, Sequence

from offsim.calibration.fit import figure
from offsim.calibration.measure import by_size
from offsim.calibration.schema import ComputeFigures, HandoverFigures
from offsim.record import RunRecord
from offsim.record.times import LayerTimes, StepTimes


def compute_figures(times: Sequence[StepTimes]) -> ComputeFigures:
    """Costs of compute, from steps in which every expert was resident.

    Args:
        times: stamps of steps; layers in which something was loaded are left out.
    """
    first, dense, head = [], [], []
    for step in times:
        layers = step.layers
        first.append((step.tokens, layers[0].enter - step.start))
        for before, after in zip(layers, layers[1:], strict=False):
            dense.append((step.tokens, after.enter - before.leave))
        head.append((step.tokens, step.end - layers[-1].leave))
    resident = [layer for step in times for layer in step.layers if not layer.misses]
    return ComputeFigures(
        first=by_size(first),
        dense=by_size(dense),
        head=by_size(head),
        dispatch=by_size([(layer.tokens, _dispatch(layer)) for layer in resident]),
        expert=by_size([(n, end - start) for layer in resident for n, start, end in layer.experts]),
    )


def handover_figures(
    record: RunRecord, times: Sequence[StepTimes], asking_nothing_s: float
) -> HandoverFigures:
    """What threads lose, from steps in which every expert was missing.

    Args:
        record: of those steps; only loads that found the pipeline idle are used.
        times: their stamps.
        asking_nothing_s: from the call of the experts to `asked` where nothing is missing, s.
    """
    layers = [layer for step in times for layer in step.layers if layer.misses]
    submit = [(layer.asked - layer.enter - asking_nothing_s) / layer.misses for layer in layers]
    start, between, wake = [], [], []
    for step in record.steps:
        for number, load in enumerate(step.loads):
            if number == 0 or step.loads[number - 1].layer != load.layer:
                start.append(load.spans[0].start - load.submitted)
            between += [b.start - a.end for a, b in zip(load.spans, load.spans[1:], strict=False)]
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
