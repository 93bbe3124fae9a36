"""Figures of codecs, scaled so that what a calibration ran itself takes as long as it did.

Parts that are measured one by one do not add up to what they make together: who queues is slowed by
whom else is at work, and a decoder's figures are those of moments in which something could be told
apart. So those that are hardest to tell apart are corrected by whole steps of the calibration's own
runs: decoding by prompts that queue for the decoder, and how it slows the dense parts of compute by
tokens for which experts are fetched ahead. No run that is checked has a part in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from offsim.calibration.fit import figure, undisturbed_rounds
from offsim.calibration.schema import Calibration, CodecFigures, Figure
from offsim.policy.policy import Policy
from offsim.record import RunRecord
from offsim.runtime.run import Run
from offsim.simulate.again import again
from offsim.trace import DECODE, PREFILL

SPEEDS = (1.0, 2.0)
"""Within which the time of decoding may be corrected, as multiples of what was measured: upwards
only, since what parts miss is time that nobody was seen to take. Prompts that take less than their
parts have another cause, such as experts that are computed where caches still hold them."""
MOST_S = 150e-6
"""Nor by more than this: what parts miss are threads that wake and wait for the interpreter, once a
load. That does not grow with the expert, so that what is left over in the prompts of large experts
has other causes, such as memory that is touched for the first time."""
SLOWDOWNS = (1.0, 50.0)
"""Within which a slowdown of compute is sought."""
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


def added_up(calibration: Calibration, number: int, queued: Ran, ahead: Ran) -> Calibration:
    """The calibration with some figures of a codec corrected.

    Args:
        calibration: of parts.
        number: of the codec in it.
        queued: runs in whose prompts loads queue for the decoder.
        ahead: runs in whose decode steps something is decoded beside the dense parts.
    """

    def faster(factor: float) -> Calibration:
        codec = calibration.codecs[number]
        return _with(calibration, number, decode_s=_scaled(codec.decode_s, factor))

    most = MOST_S / calibration.codecs[number].decode_s.value
    speeds = (max(SPEEDS[0], 1 - most), min(SPEEDS[1], 1 + most))
    speed = _solved(lambda x: _slower(faster(x), queued, PREFILL), 1.0, speeds)
    known = faster(speed)

    def slowed(slowdown: float) -> Calibration:
        return _with(known, number, compute_slowdown=slowdown)

    before = known.codecs[number].compute_slowdown
    return slowed(_solved(lambda x: _slower(slowed(x), ahead, DECODE), before, SLOWDOWNS))


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
