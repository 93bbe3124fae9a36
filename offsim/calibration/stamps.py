"""From the time stamps of a run to what compute and hand-over cost."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median

import numpy as np
from scipy.optimize import brentq
from scipy.stats import theilslopes

from offsim.calibration.fit import figure
from offsim.calibration.measure import by_size
from offsim.calibration.overlap import (
    computed,
    decoding_in,
    intervals,
    slowdown,
    within,
    within_each,
)
from offsim.calibration.reading import at_size, extra_after, sizing
from offsim.calibration.schema import (
    ComputeFigures,
    CoolingPoint,
    Figure,
    ForesightFigures,
    HandoverFigures,
    SizedFigure,
)
from offsim.record import RunRecord
from offsim.record.events import Stage
from offsim.record.times import LayerTimes, StepTimes
from offsim.trace import DECODE, PREFILL

UNUSUAL = 3.0
"""So many times the range of their middle half from the median, a layer was interrupted."""
UNPACK: Stage = "device decode"
"""The stage beside which compute is slower in the runs of experts without compression."""
FEWEST_FETCHING = 30
"""Layers that ask for something ahead, by which it can be told what that takes."""
COLDEST = 0.95
"""Most of a loss that can be left a layer later: caches are warm again within a token or two."""
SHARE_TOLERANCE = 1e-4
Observed = tuple[RunRecord, list[StepTimes]]
"""What a run gave: its record and its time stamps."""


def compute_figures(
    times: Sequence[StepTimes],
    missing: Sequence[Observed],
    halved: Sequence[Observed],
    submit_s: float,
    long: Sequence[StepTimes] = (),
) -> ComputeFigures:
    """Costs of compute.

    Args:
        times: stamps of steps in which every expert was resident; layers in which something was
            loaded are left out.
        missing: runs in which every expert was missing, each on a link of another pace.
        halved: runs in which half of the experts had a slot, likewise; what compute loses because
            it stood idle is from these alone. Where nothing has a slot, experts pass through a few
            places, which caches hold: they are computed faster than any that are kept.
        submit_s: compute's own time to ask for one load, s.
        long: stamps of the same with a long prompt, and with long contexts; none where nothing
            attends to a context.
    """
    attention = _attention([*times, *long]) if long else None
    per_pair = 0.0 if attention is None else attention.value
    steps = [*times, *long]
    first, dense, head = [], [], []
    for step in steps:
        layers, attending = step.layers, per_pair * step.tokens * step.context
        first.append((step.tokens, layers[0].enter - step.start - attending))
        for before, after in pairwise(layers):
            dense.append((step.tokens, after.enter - before.leave - attending))
        head.append((step.tokens, step.end - layers[-1].leave))
    resident = [layer for step in steps for layer in step.layers if not layer.misses]
    dispatch = [(layer.tokens, _dispatch(layer)) for layer in resident]
    expert = [(n, end - start) for layer in resident for n, start, end in layer.experts]
    tables = {
        name: by_size(samples)
        for name, samples in (
            ("first", first),
            ("dense", dense),
            ("head", head),
            ("dispatch", dispatch),
            ("expert", expert),
        )
    }
    parts = adding_up(tables, steps, per_pair)
    warm = ComputeFigures(
        label="MEASURED",
        first=parts["first"],
        dense=parts["dense"],
        head=parts["head"],
        dispatch=parts["dispatch"],
        expert=parts["expert"],
        attention_s=attention,
    )
    costs = (warm, submit_s, *_slowdowns([*missing, *halved], warm))
    spells = [list(_losses(seen, *costs)) for seen in halved]
    points = filter(None, map(_point, spells))
    cooling = sorted(points, key=lambda point: point.idle_s)
    still_cold = _still_cold([spell for run in spells for spell in run], cooling)
    return warm.model_copy(update={"cooling": cooling, "still_cold": still_cold})


def _slowdowns(seen: Sequence[Observed], warm: ComputeFigures) -> tuple[float, float]:
    """By how much what is unpacked on the device slows dense parts and experts in some runs."""
    dense, experts = [], []
    for record, times in seen:
        found = computed(record, times, UNPACK, warm)
        dense += found[0]
        experts += found[1]
    return slowdown(dense), slowdown(experts)


def adding_up(
    parts: Mapping[str, list[SizedFigure]], steps: Sequence[StepTimes], attention_s: float
) -> dict[str, list[SizedFigure]]:
    """The parts of a step, scaled so that they add up to whole steps.

    Each part is interrupted now and then, so that its times are skewed, and the centre of their sum
    lies above the sum of their centres: by 4 % on a shared machine with nine layers.

    Args:
        parts: `first`, `dense`, `head`, `dispatch` and `expert` by tokens, s.
        steps: stamps; those in which something was loaded are left out.
        attention_s: of a layer, for each pair of a token and one of its context, s.

    Returns:
        The same, those of one token by what single tokens take, and the others by what prompts do.
    """
    ratios: dict[bool, list[float]] = {True: [], False: []}
    part = {name: sizing(table) for name, table in parts.items()}
    for step in steps:
        if any(layer.misses for layer in step.layers):
            continue
        depth = len(step.layers)
        added = sum(part[name](step.tokens) for name in ("first", "head"))
        added += (depth - 1) * part["dense"](step.tokens)
        added += depth * attention_s * step.tokens * step.context
        for layer in step.layers:
            added += part["dispatch"](layer.tokens)
            added += sum(part["expert"](tokens) for tokens, _, _ in layer.experts)
        ratios[step.tokens == 1].append((step.end - step.start) / added)
    by = {single: figure(seen).value if seen else 1.0 for single, seen in ratios.items()}
    return {
        name: [
            SizedFigure(size=one.size, seconds=_scaled(one.seconds, by[one.size == 1]))
            for one in table
        ]
        for name, table in parts.items()
    }


def _scaled(seconds: Figure, by: float) -> Figure:
    part = {name: getattr(seconds, name) * by for name in ("value", "p10", "p90")}
    return seconds.model_copy(update=part)


def _attention(times: Sequence[StepTimes]) -> Figure:
    """What a layer of a decode step takes longer for each token of its context.

    The slope of Theil and Sen: the median of the slopes between all pairs of steps.
    """
    steps = [step for step in times if step.tokens == 1]
    seconds = [
        median(after.enter - before.leave for before, after in pairwise(step.layers))
        for step in steps
    ]
    slope, _, low, high = theilslopes(seconds, [step.context for step in steps], alpha=0.8)
    value, p10, p90 = (max(0.0, float(number)) for number in (slope, low, high))
    return Figure(label="MEASURED", value=value, p10=p10, p90=p90, samples=len(steps))


def foresight_figures(
    prefetch: str,
    distance: int,
    times: Sequence[StepTimes],
    resident: Sequence[StepTimes],
    submit_s: float,
) -> ForesightFigures:
    """What a prefetcher adds to a lookup beside what each load costs.

    Args:
        prefetch: its name.
        distance: layers that it looked ahead.
        times: stamps of a run under it.
        resident: stamps of a run that fetched nothing, with every expert resident.
        submit_s: compute's own time to ask for one load, s.
    """
    without = sizing(
        by_size(
            [
                (layer.tokens, layer.asked - layer.enter)
                for step in resident
                for layer in step.layers
                if not layer.misses
            ]
        )
    )
    layers = [layer for step in times for layer in step.layers]
    added = [
        layer.asked - layer.enter + layer.fetching - layer.misses * submit_s - without(layer.tokens)
        for layer in layers
    ]
    single = [
        (layer.fetched, seconds)
        for layer, seconds in zip(layers, added, strict=True)
        if layer.tokens == 1
    ]
    fetch_s = _each_fetched_s(single, submit_s)
    seconds = [
        (layer.tokens, taken - layer.fetched * fetch_s)
        for layer, taken in zip(layers, added, strict=True)
    ]
    return ForesightFigures(
        prefetch=prefetch, distance=distance, seconds=by_size(seconds), fetch_s=fetch_s
    )


def _each_fetched_s(samples: Sequence[tuple[int, float]], submit_s: float) -> float:
    """What each load that is asked for ahead takes compute, s, by least squares.

    Args:
        samples: how many a layer asked for, and what it took beside its other loads, s.
        submit_s: what any load takes, if too few samples tell.
    """
    taken = np.array([seconds for _, seconds in samples])
    if sum(fetched > 0 for fetched, _ in samples) < FEWEST_FETCHING:
        return submit_s
    low, middle, high = np.quantile(taken, (0.25, 0.5, 0.75))
    usual = np.abs(taken - middle) <= UNUSUAL * (high - low)
    fetched = np.array([number for number, _ in samples])[usual]
    if not fetched.any() or fetched.all():
        return submit_s
    slope, _ = np.polyfit(fetched, taken[usual], 1)
    return max(0.0, float(slope))


Loss = tuple[float, float]
"""How long compute stood idle in a layer, and what it lost from there to the next one, s; NaN for
the last layer of a step, which is followed by its head."""


def _losses(
    seen: Observed,
    warm: ComputeFigures,
    submit_s: float,
    slowed_dense: float,
    slowed_expert: float,
) -> Iterator[list[Loss]]:
    """What each layer lost against warm caches, through the decode steps that follow each other.

    What it lost to the decoder beside it is not counted: the simulation has that apart.
    """
    layer_s = at_size(warm.dense, 1) + at_size(warm.dispatch, 1)
    expert_s = at_size(warm.expert, 1)
    per_pair = 0.0 if warm.attention_s is None else warm.attention_s.value
    losses: list[Loss] = []
    for record, times in zip(seen[0].steps, seen[1], strict=True):
        if times.tokens != 1:
            if losses:
                yield losses
            losses = []
            continue
        idle = [0.0] * len(times.layers)
        for wait in record.waits:
            idle[wait.load.layer] += wait.end - wait.start
        decoding = decoding_in(record, UNPACK)
        for layer, (this, after) in enumerate(pairwise(times.layers)):
            expected = layer_s + len(this.experts) * expert_s + per_pair * times.context
            spans = intervals([expert[1:] for expert in this.experts])
            beside = float(within_each(spans, decoding).sum())
            expected += beside * (1 - 1 / slowed_expert)
            expected += within(this.leave, after.enter, decoding) * (1 - 1 / slowed_dense)
            taken = after.enter - this.enter - idle[layer] - this.misses * submit_s
            losses.append((idle[layer], taken - expected))
        losses.append((idle[-1], math.nan))
    if losses:
        yield losses


def _point(spells: list[list[Loss]]) -> CoolingPoint | None:
    """What the layers of a run lost in which compute stood idle; None where it never did."""
    every = (loss for spell in spells for loss in spell)
    waited = [(idle, lost) for idle, lost in every if idle and not math.isnan(lost)]
    if not waited:
        return None
    return CoolingPoint(
        idle_s=fmean(idle for idle, _ in waited), extra=figure([lost for _, lost in waited])
    )


def _still_cold(spells: list[list[Loss]], cooling: list[CoolingPoint]) -> float:
    """The share of a loss that is left one layer later.

    The one with which layers that waited for nothing lose in the mean what they did. Not the one
    that is nearest layer by layer: a long spell is followed by a fast recovery and a slow one, of
    which that would see the fast one alone.

    Args:
        spells: layers of decode steps that follow each other.
        cooling: what a layer loses.
    """
    alone = [[extra_after(cooling, idle) for idle, _ in spell] for spell in spells]
    every = np.array([loss for spell in spells for loss in spell]).reshape(-1, 2)
    quiet = (every[:, 0] == 0) & ~np.isnan(every[:, 1])
    if not quiet.any():
        return 0.0
    lost = figure(every[quiet, 1].tolist()).value

    def more(share: float) -> float:
        guess = np.array([cold for losses in alone for cold in _decaying(losses, share)])
        return figure(guess[quiet].tolist()).value - lost

    if more(0.0) >= 0 or more(COLDEST) <= 0:
        return 0.0 if more(0.0) >= 0 else COLDEST
    return float(brentq(more, 0.0, COLDEST, xtol=SHARE_TOLERANCE))


def _decaying(alone: Sequence[float], share: float) -> list[float]:
    """What each layer loses, s, given what it would lose if it stood alone, s."""
    cold, losses = 0.0, []
    for loss in alone:
        cold = max(share * cold, loss)
        losses.append(cold)
    return losses


def handover_figures(missing: Sequence[Observed], asking_nothing_s: float) -> HandoverFigures:
    """What threads lose when one wakes the other.

    Args:
        missing: runs in which every expert was missing; for the start only the first load of a
            layer is used, which finds the pipeline idle, and between two stages only a load whose
            next stage was through with the load before.
        asking_nothing_s: from the call of the experts to `asked` where nothing is missing, s.
    """
    layers = [layer for _, times in missing for step in times for layer in step.layers]
    submit = [(layer.asked - layer.enter - asking_nothing_s) / layer.misses for layer in layers]
    start, between, wake = [], [], []
    for step in (step for record, _ in missing for step in record.steps):
        free: dict[Stage, float] = {}  # since when each stage has nothing to serve
        for number, load in enumerate(step.loads):
            if number == 0 or step.loads[number - 1].layer != load.layer:
                start.append(load.spans[0].start - load.submitted)
            for before, after in pairwise(load.spans):
                if free.get(after.stage, before.end) <= before.end:
                    between.append(after.start - before.end)
                free[after.stage] = after.end
        wake += [wait.end - wait.load.spans[-1].end for wait in step.waits]
    return HandoverFigures(
        submit_s=figure(submit),
        start_s=figure(start),
        between_s=figure(between),
        wake_s=figure(wake),
    )


def overshoots(record: RunRecord, bytes_per_s: float) -> Iterator[float]:
    """By how much transfers on a paced link were noticed later than bytes / pace, s.

    Only those are taken that found the link idle: one that had to wait is carried from when the
    one before it was through, which its span does not have.
    """
    free = -math.inf
    for step in record.steps:
        for load in step.loads:
            since = load.submitted
            for span in load.spans:
                if span.stage == "link":
                    if since > free:
                        yield span.end - span.start - load.link_bytes / bytes_per_s
                    free = max(free, span.end)
                since = span.end


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
