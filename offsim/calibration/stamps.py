"""From the time stamps of a run to what compute and hand-over cost."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import fmean

import numpy as np
from scipy.optimize import minimize_scalar

from offsim.calibration.fit import figure
from offsim.calibration.measure import by_size
from offsim.calibration.schema import (
    ComputeFigures,
    CoolingPoint,
    ForesightFigures,
    HandoverFigures,
    SizedFigure,
    at_size,
    extra_after,
)
from offsim.record import RunRecord
from offsim.record.events import Stage
from offsim.record.times import LayerTimes, StepTimes
from offsim.trace import DECODE, PREFILL

OUTLIER_S = 0.002
"""A layer this far from the median was interrupted by something else."""
Observed = tuple[RunRecord, list[StepTimes]]
"""What a run gave: its record and its time stamps."""


def compute_figures(
    times: Sequence[StepTimes],
    missing: Sequence[Observed],
    halved: Observed,
    submit_s: float,
) -> ComputeFigures:
    """Costs of compute.

    Args:
        times: stamps of steps in which every expert was resident; layers in which something was
            loaded are left out.
        missing: runs in which every expert was missing, each on a link of another pace.
        halved: a run in which half of the experts had a slot.
        submit_s: compute's own time to ask for one load, s.
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
    warm = {
        name: figure([seconds for tokens, seconds in samples if tokens == 1]).value
        for name, samples in (("dense", dense), ("dispatch", dispatch), ("expert", expert))
    }
    losses = [[pair for step in _losses(seen, warm, submit_s) for pair in step] for seen in missing]
    cooling = sorted(map(_point, filter(None, losses)), key=lambda point: point.idle_s)
    return ComputeFigures(
        label="MEASURED",
        first=by_size(first),
        dense=by_size(dense),
        head=by_size(head),
        dispatch=by_size(dispatch),
        expert=by_size(expert),
        cooling=cooling,
        still_cold=_still_cold(list(_losses(halved, warm, submit_s)), cooling),
    )


def foresight_figures(
    prefetch: str, distance: int, times: Sequence[StepTimes], dispatch: Sequence[SizedFigure]
) -> ForesightFigures:
    """What a prefetcher adds to a lookup.

    Args:
        prefetch: its name.
        distance: layers that it looked ahead.
        times: stamps of steps in which every expert was resident, so that nothing was fetched.
        dispatch: by tokens, of a run that prefetched nothing.
    """
    seconds = [
        (layer.tokens, _dispatch(layer) - at_size(list(dispatch), layer.tokens))
        for step in times
        for layer in step.layers
        if not layer.misses
    ]
    return ForesightFigures(prefetch=prefetch, distance=distance, seconds=by_size(seconds))


Loss = tuple[float, float]
"""How long compute stood idle in a layer, and what it lost from there to the next one, s."""


def _losses(seen: Observed, warm: dict[str, float], submit_s: float) -> Iterator[list[Loss]]:
    """What each layer of each decode step lost against warm caches."""
    for record, times in zip(seen[0].steps, seen[1], strict=True):
        if times.tokens != 1:
            continue
        idle = [0.0] * len(times.layers)
        for wait in record.waits:
            idle[wait.load.layer] += wait.end - wait.start
        losses = []
        for layer, (this, after) in enumerate(pairwise(times.layers)):
            expected = warm["dense"] + warm["dispatch"] + len(this.experts) * warm["expert"]
            taken = after.enter - this.enter - idle[layer] - this.misses * submit_s
            losses.append((idle[layer], taken - expected))
        yield losses


def _point(losses: list[Loss]) -> CoolingPoint:
    return CoolingPoint(
        idle_s=fmean(idle for idle, _ in losses), extra=figure([lost for _, lost in losses])
    )


def _still_cold(steps: list[list[Loss]], cooling: list[CoolingPoint]) -> float:
    """The share of a loss that is left one layer later, by least squares over whole steps."""
    actual = np.array([lost for step in steps for _, lost in step])
    if not len(actual) or not cooling:
        return 0.0
    kept = np.abs(actual - np.median(actual)) < OUTLIER_S

    def error(share: float) -> float:
        guess = [cold for step in steps for cold in coldness([i for i, _ in step], cooling, share)]
        return float(((np.array(guess) - actual)[kept] ** 2).sum())

    return float(minimize_scalar(error, bounds=(0.0, 1.0), method="bounded").x)


def coldness(idle: Sequence[float], cooling: list[CoolingPoint], share: float) -> list[float]:
    """What each layer loses, s, given how long compute stood idle in it, s."""
    cold, losses = 0.0, []
    for seconds in idle:
        cold = max(share * cold, extra_after(cooling, seconds))
        losses.append(cold)
    return losses


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


def overshoots(record: RunRecord, bytes_per_s: float) -> Iterator[float]:
    """By how much each transfer of a run on a paced link took longer than bytes / pace, s."""
    for step in record.steps:
        for load in step.loads:
            for span in load.spans:
                if span.stage == "link":
                    yield span.end - span.start - load.link_bytes / bytes_per_s


def undisturbed(record: RunRecord, stage: Stage) -> list[float]:
    """Seconds of a stage while compute did nothing but wait for that load, in decode steps.

    Where there is no such load, of all loads of the decode steps; where these have none, of the
    prompt passes.
    """
    alone: list[float] = []
    by_phase: dict[int, list[float]] = {PREFILL: [], DECODE: []}
    for step in record.steps:
        waited_since = {id(wait.load): wait.start for wait in step.waits}
        for load in step.loads:
            for span in (span for span in load.spans if span.stage == stage):
                seconds = span.end - span.start
                by_phase[step.phase].append(seconds)
                if step.phase == DECODE and waited_since.get(id(load), np.inf) <= span.start:
                    alone.append(seconds)
    return alone or by_phase[DECODE] or by_phase[PREFILL]


def asking_nothing(times: Sequence[StepTimes]) -> Iterator[float]:
    """Seconds from the call of the experts to `asked`, of decode layers without a miss."""
    for step in times:
        for layer in step.layers:
            if layer.tokens == 1 and not layer.misses:
                yield layer.asked - layer.enter


def _dispatch(layer: LayerTimes) -> float:
    return (layer.leave - layer.enter) - sum(end - start for _, start, end in layer.experts)
