"""What a decoder takes in a queue and costs compute, from runs in which both work side by side.

A run is the place to measure it: a decoder in a tight loop beside a tight loop of compute fights
for the interpreter lock, and works in warm caches, as in no run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
import numpy.typing as npt

from offsim.calibration.fit import summed
from offsim.calibration.schema import ComputeFigures, at_size
from offsim.record import RunRecord, Span, StepRecord
from offsim.record.events import Stage
from offsim.record.times import StepTimes

Intervals = npt.NDArray[np.float64]
"""[intervals, 2] begin and end, s."""
INTERRUPTED = 10.0
"""Compute that takes so many times its median was interrupted by something else."""
MOST_LOST = 0.8
"""Of a second together that a decoder can be said to lose."""
FEWEST = 8
"""Samples by which a slowdown can be told."""
LEAST_SPREAD = 0.03
"""Standard deviation of the shares, likewise."""
MOSTLY = 0.8
"""Share of a load's decoding from which on compute worked beside it, and of which less than the
rest is left where it stood still."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Some work, and what was done beside it.

    Attributes:
        seconds: that it took.
        together: of these, both worked.
        relative: `seconds` as a multiple of what it takes alone; 0 where that is not known.
        cold: whether compute had stood idle shortly before.
    """

    seconds: float
    together: float
    relative: float = 0.0
    cold: bool = False


def decoded(record: RunRecord, stage: Stage, *, in_turn: bool) -> Iterator[Beside]:
    """Loads that were decoded, and for how long compute worked meanwhile.

    Args:
        record: of a run.
        stage: that decodes.
        in_turn: those that were decoded right after another one, for which they had waited; or
            the others, whose decoder was idle.
    """
    for step in record.steps:
        idle = intervals([(wait.start, wait.end) for wait in step.waits])
        free = -np.inf
        for span, arrived in _served(step, stage):
            if (arrived <= free) == in_turn:
                seconds = span.end - span.start
                yield Beside(seconds, seconds - within(span.start, span.end, idle))
            free = span.end


def computed(
    record: RunRecord, times: Sequence[StepTimes], stage: Stage, compute: ComputeFigures
) -> tuple[list[Beside], list[Beside]]:
    """What compute did, and for how long something was decoded meanwhile.

    Args:
        record: of a run.
        times: stamps of its steps.
        stage: that decodes.
        compute: what everything takes alone.

    Returns:
        Dense parts of decode steps, and experts.
    """
    dense, experts = [], []
    attention = 0.0 if compute.attention_s is None else compute.attention_s.value
    for step, stamps in zip(record.steps, times, strict=True):
        decoding = decoding_in(step, stage)
        waited = {wait.load.layer for wait in step.waits}

        def beside(
            start: float,
            end: float,
            alone: float,
            layer: int,
            decoding: Intervals = decoding,
            waited: set[int] = waited,
        ) -> Beside:
            together = within(start, end, decoding)
            return Beside(end - start, together, (end - start) / alone, layer in waited)

        for number, layer in enumerate(stamps.layers):
            experts += [
                beside(start, end, at_size(compute.expert, tokens), number)
                for tokens, start, end in layer.experts
            ]
        if stamps.tokens == 1:
            alone = at_size(compute.dense, 1) + attention * stamps.context
            dense += [
                beside(before.leave, after.enter, alone, number)
                for number, (before, after) in enumerate(pairwise(stamps.layers))
            ]
    return dense, experts


def slowdown(samples: Sequence[Beside]) -> float:
    """By how much a decoder slows what compute does, at least 1.

    A plane is laid through what the samples took over the share of it that something was decoded,
    and over whether compute was cold, by least squares. They take means: where two take turns at
    something, such as the interpreter lock, one is not slower most of the time but stands still
    some of the time. The slowdown is 1 where the samples cannot tell.
    """
    if len(samples) < FEWEST:
        return 1.0
    took = np.array([one.relative for one in samples])
    shares = np.array([one.together / one.seconds for one in samples])
    terms = np.column_stack((np.ones_like(took), shares, [one.cold for one in samples]))
    kept = took < INTERRUPTED * np.median(took)
    if kept.sum() < FEWEST or shares[kept].std() <= LEAST_SPREAD:
        return 1.0
    start, slope, _ = np.linalg.lstsq(terms[kept], took[kept])[0].tolist()
    return max(1.0, 1 + slope / start) if start > 0 else 1.0


def decode_slowdown(samples: Sequence[Beside]) -> float:
    """By how much compute slows a decoder, at least 1.

    From loads beside which compute worked nearly all the time, and those beside which it hardly
    did; 1 where there are too few of either. Not by a line over shares: whatever makes a load take
    longer makes the share smaller, as compute is through with its work after a while.
    """
    beside = [one for one in samples if one.together >= MOSTLY * one.seconds]
    still = [one.seconds for one in samples if one.together <= (1 - MOSTLY) * one.seconds]
    if min(len(beside), len(still)) < FEWEST:
        return 1.0
    added = fmean(one.seconds for one in beside) - summed(still).value
    rate = added / fmean(one.together for one in beside)  # what is lost of each second together
    return 1 / (1 - min(max(0.0, rate), MOST_LOST))


def alone(samples: Sequence[Beside], slowdown: float) -> list[float]:
    """What each sample would have taken without compute beside it, s."""
    return [one.seconds - one.together * (1 - 1 / slowdown) for one in samples]


def _served(step: StepRecord, stage: Stage) -> list[tuple[Span, float]]:
    """The spans of a stage in order, each with when its load came there, s."""
    found = []
    for load in step.loads:
        came = load.submitted
        for span in load.spans:
            if span.stage == stage:
                found.append((span, came))
            came = span.end
    return sorted(found, key=lambda pair: pair[0].start)


def decoding_in(step: StepRecord, stage: Stage) -> Intervals:
    """When a stage of a step decoded."""
    return intervals([(span.start, span.end) for span, _ in _served(step, stage)])


def intervals(pairs: Sequence[tuple[float, float]]) -> Intervals:
    """[intervals, 2] of pairs of begin and end, s."""
    return np.array(pairs, float).reshape(-1, 2)


def within(start: float, end: float, intervals: Intervals) -> float:
    """How much of the time from `start` to `end` lies in intervals that do not overlap."""
    common = np.minimum(end, intervals[:, 1]) - np.maximum(start, intervals[:, 0])
    return float(common.clip(min=0).sum())
