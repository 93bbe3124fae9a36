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
from offsim.calibration.reading import at_size, sizing
from offsim.calibration.schema import ComputeFigures
from offsim.record import RunRecord, Span, StepRecord
from offsim.record.events import Stage
from offsim.record.times import StepTimes

Intervals = npt.NDArray[np.float64]
"""[intervals, 2] begin and end, s."""
Moments = npt.NDArray[np.float64]
"""[moments] s."""
INTERRUPTED = 10.0
"""Compute that takes so many times its median was interrupted by something else."""
MOST_LOST = 0.8
"""Of a second together that a decoder can be said to lose."""
MOST_HELD = 0.98
"""The same of compute, which small work in many calls can stop nearly altogether."""
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
        arrivals: chunks that came over the link meanwhile.
    """

    seconds: float
    together: float
    relative: float = 0.0
    cold: bool = False
    arrivals: int = 0


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
    record: RunRecord,
    times: Sequence[StepTimes],
    stage: Stage,
    compute: ComputeFigures,
    chunks: int = 1,
) -> tuple[list[Beside], list[Beside]]:
    """What compute did, and for how long something was decoded meanwhile.

    Args:
        record: of a run.
        times: stamps of its steps.
        stage: that decodes.
        compute: what everything takes alone.
        chunks: in which each load came, about equally spaced.

    Returns:
        Dense parts of decode steps, without asking for what is fetched ahead, and experts.
    """
    dense: list[Beside] = []
    experts: list[Beside] = []
    attention = 0.0 if compute.attention_s is None else compute.attention_s.value
    expert_s, dense_s = sizing(compute.expert), at_size(compute.dense, 1)
    for step, stamps in zip(record.steps, times, strict=True):
        decoding, arriving = decoding_in(step, stage), _arriving_in(step, chunks)
        waited = {wait.load.layer for wait in step.waits}

        def beside(
            work: Sequence[tuple[float, float, float, int]],
            decoding: Intervals = decoding,
            arriving: Moments = arriving,
            waited: set[int] = waited,
        ) -> Iterator[Beside]:
            """What was done beside work, of which begin, end, s alone and layer are given."""
            ends = intervals([one[:2] for one in work])
            together = within_each(ends, decoding).tolist()
            came = ((ends[:, :1] < arriving) & (arriving < ends[:, 1:])).sum(axis=1).tolist()
            for (start, end, alone, layer), both, arrived in zip(work, together, came, strict=True):
                yield Beside(end - start, both, (end - start) / alone, layer in waited, arrived)

        experts += beside(
            [
                (start, end, expert_s(tokens), number)
                for number, layer in enumerate(stamps.layers)
                for tokens, start, end in layer.experts
            ]
        )
        if stamps.tokens == 1:
            alone = dense_s + attention * stamps.context
            dense += beside(
                [
                    (before.leave + before.fetching, after.enter, alone, number)
                    for number, (before, after) in enumerate(pairwise(stamps.layers))
                ]
            )
    return dense, experts


def slowdown(samples: Sequence[Beside]) -> float:
    """By how much a decoder slows what compute does, at least 1; see `interference`."""
    return interference(samples)[0]


def interference(samples: Sequence[Beside]) -> tuple[float, float]:
    """By how much a decoder slows what compute does, at least 1, and what an arrival costs it, s.

    A plane is laid through what the samples lost over how long something was decoded beside them,
    how many chunks came, and whether compute was cold, by least squares. They take means: where
    two take turns at something, such as the interpreter lock, one is not slower most of the time
    but stands still some of the time. 1 and 0 s where the samples cannot tell.
    """
    took = np.array([one.relative for one in samples])
    kept = took < INTERRUPTED * np.median(took) if len(took) else np.zeros(0, np.bool_)
    usual = [one for one, usable in zip(samples, kept, strict=True) if usable]
    if len(usual) < FEWEST:
        return 1.0, 0.0
    seconds, together = (
        np.array([getattr(one, n) for one in usual]) for n in ("seconds", "together")
    )
    lost = seconds - seconds / took[kept]
    arrivals = np.array([float(one.arrivals) for one in usual])
    told = [(together / seconds).std() > LEAST_SPREAD, bool(arrivals.any())]
    terms = [
        np.ones(len(usual)),
        np.array([float(one.cold) for one in usual]),
        *(term for term, tells in zip((together, arrivals), told, strict=True) if tells),
    ]
    slopes = iter(np.linalg.lstsq(np.column_stack(terms), lost)[0].tolist()[2:])
    rate, arrival_s = (max(0.0, next(slopes)) if tells else 0.0 for tells in told)
    return 1 / (1 - min(rate, MOST_HELD)), arrival_s


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


def _arriving_in(step: StepRecord, chunks: int) -> Moments:
    """When the chunks of the loads of a step had crossed the link."""
    spans = [span for load in step.loads for span in load.spans if span.stage == "link"]
    ends = intervals([(span.start, span.end) for span in spans])
    shares = np.arange(1, chunks + 1) / chunks
    moments: Moments = (ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * shares).ravel()
    return moments


def intervals(pairs: Sequence[tuple[float, float]]) -> Intervals:
    """[intervals, 2] of pairs of begin and end, s."""
    return np.array(pairs, float).reshape(-1, 2)


def within(start: float, end: float, intervals: Intervals) -> float:
    """How much of the time from `start` to `end` lies in intervals that do not overlap."""
    return float(within_each(np.array([[start, end]]), intervals)[0])


def within_each(times: Intervals, intervals: Intervals) -> Moments:
    """The same of several times, [times] s.

    Args:
        times: [times, 2] begin and end, s.
        intervals: [intervals, 2] begin and end, s, of which none overlap.
    """
    ends = np.minimum(times[:, 1:], intervals[:, 1])
    begins = np.maximum(times[:, :1], intervals[:, 0])
    total: Moments = (ends - begins).clip(min=0).sum(axis=1)
    return total
