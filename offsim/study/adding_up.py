"""Figures of codecs, scaled so that what a calibration ran itself takes as long as it did.

Parts that are measured one by one do not add up to what they make together: who queues is slowed by
whom else is at work, and a decoder's figures are those of moments in which something could be told
apart. So those that are hardest to tell apart are corrected by whole steps of the calibration's own
runs: decoding by prompts that queue for the decoder; how it slows the dense parts of compute, and
what chunks that arrive cost these, by tokens for which experts are fetched ahead, whole and in
chunks. No run that is checked has a part in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from offsim.calibration.fit import figure, undisturbed_rounds
from offsim.calibration.schema import Calibration, CodecFigures, Figure
from offsim.policy.policy import Policy
from offsim.record import RunRecord
from offsim.runtime.run import Run
from offsim.simulate.again import again
from offsim.trace import DECODE, PREFILL

SPEEDS = (0.5, 2.0)
"""Within which the time of decoding may be corrected, as multiples of what was measured."""
MOST_S = 150e-6
"""Nor by more than this: what parts miss are threads that wake and wait for the interpreter, once a
load. That does not grow with the expert, so that what is left over in the prompts of large experts
has other causes, such as memory that is touched for the first time."""
SLOWDOWNS = (1.0, 10.0)
"""Within which a slowdown of compute is sought."""
ARRIVALS_S = (0.0, 60e-6)
"""Within which it is sought what a chunk that arrives costs compute, s: a thread wakes."""
FIRST_ARRIVAL_S = 10e-6
"""Of these, tried first."""
AGAIN = 2
"""Times that slowdown and arrival, of which each depends on the other, are sought."""
STEP = 1.15
"""To the second value that is tried."""
TRIES = 4
CLOSE = 0.002
"""An error of the sum that is as good as none."""


@dataclass(frozen=True)
class Ran:
    """A policy that was run once a round.

    Attributes:
        policy: which.
        link_bytes_per_s: pace of the link.
        runs: one a round.
    """

    policy: Policy
    link_bytes_per_s: float
    runs: Sequence[Run]


@dataclass(frozen=True)
class Whole:
    """The runs of a codec whose whole steps count.

    Attributes:
        queued: in whose prompts loads queue for the decoder.
        ahead: in whose decode steps something is decoded beside the dense parts.
        ahead_chunked: the same where it comes in chunks.
    """

    queued: Ran
    ahead: Ran
    ahead_chunked: Ran


def added_up(calibration: Calibration, number: int, whole: Whole) -> Calibration:
    """The calibration with some figures of a codec corrected.

    Args:
        calibration: of parts.
        number: of the codec in it.
        whole: its runs.
    """

    def faster(factor: float) -> Calibration:
        codec = calibration.codecs[number]
        return _with(calibration, number, decode_s=_scaled(codec.decode_s, factor))

    most = MOST_S / calibration.codecs[number].decode_s.value
    speeds = (max(SPEEDS[0], 1 - most), min(SPEEDS[1], 1 + most))
    speed = _solved(lambda x: _slower(faster(x), whole.queued, PREFILL), 1.0, speeds)
    return _beside_compute(faster(speed), number, whole)


def _beside_compute(calibration: Calibration, number: int, whole: Whole) -> Calibration:
    """The calibration with what decoding and arriving cost compute corrected."""
    slowdown, arrival_s = calibration.codecs[number].compute_slowdown, FIRST_ARRIVAL_S

    def known(slowdown: float, arrival_s: float) -> Calibration:
        return _with(calibration, number, compute_slowdown=slowdown, arrival_s=arrival_s)

    def slower(ran: Ran, slowdown: float, arrival_s: float) -> float:
        return _slower(known(slowdown, arrival_s), ran, DECODE)

    for _ in range(AGAIN):
        by_slowdown = partial(slower, whole.ahead, arrival_s=arrival_s)
        slowdown = _solved(by_slowdown, slowdown, SLOWDOWNS)
        by_arrival = partial(slower, whole.ahead_chunked, slowdown)
        arrival_s = _solved(by_arrival, arrival_s, ARRIVALS_S)
    return known(slowdown, arrival_s)


def _slower(calibration: Calibration, ran: Ran, phase: int) -> float:
    """How many times longer the steps of a phase took than they would by a calibration."""
    rounds = []
    for run in ran.runs:
        pairs = zip(run.record.steps, run.times, strict=True)
        steps, times = zip(*(pair for pair in pairs if pair[0].phase == phase), strict=True)
        record = RunRecord(run.record.label, list(steps))
        predicted = again(record, times, ran.policy, calibration, ran.link_bytes_per_s)
        rounds.append(
            [(s.end - s.start) / p for s, p in zip(steps, predicted.tolist(), strict=True)]
        )
    kept = undisturbed_rounds(rounds, lambda ratios: figure(ratios).value)
    return figure([ratio for ratios in kept for ratio in ratios]).value


def _solved(slower: Callable[[float], float], start: float, ends: tuple[float, float]) -> float:
    """The number at which `slower` is 1, by secants; the nearest that was tried if none is.

    Args:
        slower: falls as its argument rises.
        start: tried first.
        ends: least and most.
    """

    def within(number: float) -> float:
        return min(max(number, ends[0]), ends[1])

    tried = [(start, slower(start) - 1)]
    following = within(start * STEP if tried[0][1] > 0 else start / STEP)
    while len(tried) < TRIES and abs(tried[-1][1]) > CLOSE and following != tried[-1][0]:
        tried.append((following, slower(following) - 1))
        (x0, y0), (x1, y1) = tried[-2:]
        following = within(x1 - y1 * (x1 - x0) / (y1 - y0)) if y1 != y0 else x1
    return min(tried, key=lambda pair: abs(pair[1]))[0]


def _with(calibration: Calibration, number: int, **changes: object) -> Calibration:
    codecs: list[CodecFigures] = list(calibration.codecs)
    codecs[number] = codecs[number].model_copy(update=changes)
    return calibration.model_copy(update={"codecs": codecs})


def _scaled(seconds: Figure, factor: float) -> Figure:
    part = {name: getattr(seconds, name) * factor for name in ("value", "p10", "p90")}
    return seconds.model_copy(update=part)
