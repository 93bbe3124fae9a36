"""Where a codec beats raw: over the bandwidth of the link, and over the slots; docs/answers.md."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from offsim.errors import InputError
from offsim.policy.bounds import Bounds
from offsim.record.events import Label
from offsim.simulate import Costs
from offsim.study.case import DECODED, Case

LOWEST, HIGHEST = 1e6, 1e13
"""Bandwidths between which a crossing is looked for, bytes/s."""
POINTS_A_DECADE = 2
TOLERANCE = 0.01
"""Relative, of a bandwidth that is found."""
LONGEST_RUN_S = 2e6
"""The clock of a simulation counts to 9e6 s."""
MOST_SLOTS = 12
"""Numbers of slots that are tried."""
RAW = ("raw", 0.0)
Verdict = Literal["always", "never", "below", "above", "several"]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A bandwidth at which codec and raw are equally fast.

    Attributes:
        bytes_per_s: of the link.
        tpot_s: of the codec there.
        faster_below: whether the codec is the faster one below it, or above.
    """

    bytes_per_s: float
    tpot_s: float
    faster_below: bool


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """One expert on its way alone, without queues, overlap or contention: ESTIMATED.

    Attributes:
        raw_s: on the link as stored.
        codec_s: its mean blob on the link, and decoding.
        bytes_per_s: bandwidth at which both take as long; inf where the codec is always faster,
            0 where it never is.
    """

    raw_s: float
    codec_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class CodecBreakeven:
    """One codec and bound against raw.

    Attributes:
        codec: its name.
        bound: absolute, unit of the weights; 0 where it has a table of bounds.
        storage: codec and bound, or its table, as one short text.
        placement: where it decodes.
        tpot_s: [bandwidths]
        crossings: over the bandwidth, rising; each to within `TOLERANCE`.
        slots_tpot_s: [slots] at the given link.
        faster_slots: of those tried, at which it is faster.
        alone: cross-check.
        verdict: over which bandwidths it is faster.
    """

    codec: str
    bound: float
    storage: str
    placement: str
    tpot_s: list[float]
    crossings: list[Crossing]
    slots_tpot_s: list[float]
    faster_slots: list[int]
    alone: ClosedForm
    verdict: Verdict

    @property
    def largest_slots(self) -> int | None:
        """The most slots at which it is faster, of those tried; None where it never is."""
        return max(self.faster_slots, default=None)


@dataclass(frozen=True)
class Breakevens:
    """All codecs against raw.

    Attributes:
        label: of every TPOT.
        link_bytes_per_s: the given link.
        bandwidths: that were tried first, bytes/s, rising.
        raw_tpot_s: [bandwidths]
        slots: that were tried, of each layer, rising.
        raw_slots_tpot_s: [slots] at the given link.
        codecs: in the order of the calibration.
    """

    label: Label
    link_bytes_per_s: float
    bandwidths: list[float]
    raw_tpot_s: list[float]
    slots: list[int]
    raw_slots_tpot_s: list[float]
    codecs: list[CodecBreakeven]


def breakevens(
    case: Case,
    asked: Sequence[tuple[str, float | Bounds]] = (),
    progress: Progress = lambda what, share: None,
) -> Breakevens:
    """Hold codecs against raw.

    Args:
        case: trace, policy and machine; codec and bound of the policy are not looked at.
        asked: codecs, each with its bound or its table of bounds; all of the calibration but raw
            where there are none.
        progress: told what is simulated next, and the share done, 0..1.

    Raises:
        InputError: raw or a codec was not calibrated, there is no other than raw, no request has
            two output tokens, or as for `predict`.
    """
    calibrated = [(figures.codec, figures.bound) for figures in case.calibration.codecs]
    others = [one for one in dict.fromkeys(asked or calibrated) if one[0] != RAW[0]]
    rivals = [_stored_as(case, *one) for one in (RAW, *others)]
    figures = [rival.figures for rival in rivals]  # refuses what was not calibrated
    if not others:
        raise InputError("there is no codec but raw to hold against raw; calibrate with another")
    rivals[0] = rivals[0].with_policy(**DECODED)  # it is never compressed
    progress("at the given link", 0.0)
    given = [rival.predict() for rival in rivals]
    if math.isnan(given[0].tpot_s):
        raise InputError("no request of the trace has two output tokens, so that there is no TPOT")
    slots = slots_tried(case.experts)
    rooms = [{"slots": count, "extra": 0} for count in slots]
    share = 1 / len(rivals)
    over_slots = [
        [_at(rival.with_policy(**room), progress, 0.3 * share * at) for room in rooms]
        for at, rival in enumerate(rivals)
    ]
    bandwidths = bandwidths_tried(max(metrics.link_bytes for metrics in given))
    over_links = [
        [_at(rival.at_bandwidth(b), progress, 0.3 + 0.5 * share * at) for b in bandwidths]
        for at, rival in enumerate(rivals)
    ]
    found = []
    for at, rival in enumerate(rivals[1:], start=1):
        progress(f"{rival.policy.storage}: crossings", 0.8 + 0.2 * share * at)
        crossings = _crossings(rivals[0], rival, bandwidths, over_links[0], over_links[at])
        faster = _faster(over_links[0], over_links[at])
        wins = [s for s, w in zip(slots, _faster(over_slots[0], over_slots[at]), strict=True) if w]
        found.append(
            CodecBreakeven(
                codec=rival.policy.codec,
                bound=rival.policy.bound,
                storage=rival.policy.storage,
                placement=figures[at].placement,
                tpot_s=over_links[at],
                crossings=crossings,
                slots_tpot_s=over_slots[at],
                faster_slots=wins,
                alone=alone(rivals[0], rival),
                verdict=_verdict(faster, crossings),
            )
        )
    return Breakevens(
        label=given[0].label,
        link_bytes_per_s=case.bandwidth,
        bandwidths=bandwidths,
        raw_tpot_s=over_links[0],
        slots=slots,
        raw_slots_tpot_s=over_slots[0],
        codecs=found,
    )


def slots_tried(experts: int) -> list[int]:
    """Numbers of slots from 0 to all experts, at most MOST_SLOTS, evenly spaced by their ratio."""
    spaced = np.geomspace(1, experts, MOST_SLOTS - 1)
    return sorted({0, experts, *(round(float(slots)) for slots in spaced)})


def bandwidths_tried(link_bytes: int) -> list[float]:
    """Bandwidths from LOWEST to HIGHEST, bytes/s; from higher on where a run would take too long.

    Args:
        link_bytes: that a run moves.
    """
    lowest = max(LOWEST, link_bytes / LONGEST_RUN_S)
    points = max(2, math.ceil(POINTS_A_DECADE * math.log10(HIGHEST / lowest)) + 1)
    return [float(value) for value in np.geomspace(lowest, HIGHEST, points)]


def alone(raw: Case, codec: Case) -> ClosedForm:
    """One expert of each, alone."""
    costs = [Costs(c.calibration, c.policy, c.link_bytes_per_s) for c in (raw, codec)]
    sizes = [float(np.mean(cost.codec.blob_bytes)) for cost in costs]
    figures = costs[1].codec
    if figures.placement == "host":
        sizes[1] = codec.calibration.model.expert_bytes
    raw_s, codec_s = (
        sum(cost.stages_s(round(size))) for cost, size in zip(costs, sizes, strict=True)
    )
    unpack_s = 0.0 if figures.unpack_s is None else figures.unpack_s.value
    decode_s = figures.decode_s.value + unpack_s - costs[0].codec.decode_s.value
    fewer = sizes[0] - sizes[1]
    if fewer <= 0:
        bandwidth = math.inf if decode_s < 0 else 0.0
    else:
        bandwidth = fewer / decode_s if decode_s > 0 else math.inf
    return ClosedForm(raw_s, codec_s, bandwidth)


def _stored_as(case: Case, codec: str, bound: float | Bounds) -> Case:
    """The same with experts under another codec, at a bound or under a table of bounds."""
    if isinstance(bound, Bounds):
        return case.with_policy(codec=codec, bound=0.0, bounds=bound)
    return case.with_policy(codec=codec, bound=bound, bounds=None)


def _at(case: Case, progress: Progress, share: float) -> float:
    slots = f"{case.policy.slots} slots, {case.bandwidth / 1e9:.3g} GB/s"
    progress(f"{case.policy.storage}, {slots}", share)
    return case.predict().tpot_s


def _faster(raw: Sequence[float], codec: Sequence[float]) -> list[bool]:
    """Where the codec is faster; as fast is not faster."""
    return [own < other for own, other in zip(codec, raw, strict=True)]


def _crossings(
    raw: Case,
    codec: Case,
    bandwidths: Sequence[float],
    raw_s: Sequence[float],
    codec_s: Sequence[float],
) -> list[Crossing]:
    """Where one overtakes the other, by bisection between neighbours on the grid."""
    faster = _faster(raw_s, codec_s)
    found = []
    for at in np.flatnonzero(np.diff(faster)).tolist():
        low, high = bandwidths[at], bandwidths[at + 1]
        while high / low > 1 + TOLERANCE:
            middle = math.sqrt(low * high)
            wins = _wins(raw.at_bandwidth(middle), codec.at_bandwidth(middle))
            low, high = (middle, high) if wins == faster[at] else (low, middle)
        middle = math.sqrt(low * high)
        found.append(Crossing(middle, codec.at_bandwidth(middle).predict().tpot_s, faster[at]))
    return found


def _wins(raw: Case, codec: Case) -> bool:
    return codec.predict().tpot_s < raw.predict().tpot_s


def _verdict(faster: Sequence[bool], crossings: Sequence[Crossing]) -> Verdict:
    if not crossings:
        return "always" if faster[0] else "never"
    if len(crossings) > 1:
        return "several"
    return "below" if crossings[0].faster_below else "above"
