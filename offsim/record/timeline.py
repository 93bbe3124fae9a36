"""A run as a file of trace events, which ui.perfetto.dev and chrome://tracing open.

The format is the JSON one of Chromium's "Trace Event Format": complete events (`X`), counters (`C`)
and names (`M`), times in microseconds. Inside, times are whole nanoseconds since the first step:
what touches in the record still touches, and what is nested stays nested, after rounding.
"""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from offsim import __version__
from offsim.files import replacing
from offsim.policy.evictions import Key
from offsim.policy.tiers import Sizes
from offsim.record.events import SELDOM, STAGES, Load, RunRecord, StepRecord, Wait
from offsim.record.metrics import split_wait
from offsim.trace import PREFILL
from offsim.units import show_bytes

Event = dict[str, Any]
"""One event of the file."""
PROCESS = 1
TRACKS = ("compute", "stall", *STAGES)
"""From top to bottom."""
RESIDENT, OCCUPIED, IN_FLIGHT = "cache", "cache bytes", "in flight"
COUNTERS = {RESIDENT: "experts", OCCUPIED: "bytes", IN_FLIGHT: "loads"}
"""What each counter counts."""
LANES = 100
"""Numbers kept free for each track: what overlaps on one is shown side by side."""


def write_timeline(
    record: RunRecord,
    path: Path,
    about: Mapping[str, str],
    steps: int | None = None,
    sizes: Sizes | None = None,
) -> None:
    """Write a timeline, event by event: memory does not grow with the run.

    The same record gives the same bytes.

    Args:
        record: simulated or measured.
        path: JSON file, written whole or not at all.
        about: what else the file says of the run, such as its policy; `policy` names the process.
        steps: only the first so many; None for all.
        sizes: bytes that an expert takes in the cache, or as blob in one tier and decoded in the
            other; None: they are not counted.

    Raises:
        InputError: the file cannot be written.
        ValueError: the record has no step, or fewer than one is asked for.
    """
    events = timeline_events(record, about.get("policy", ""), steps, sizes)
    first = _text(next(events))  # a record without a step is refused before a file is there
    said = json.dumps({**about, "label": record.label, "offsim": __version__}, sort_keys=True)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'{{"displayTimeUnit":"ms","otherData":{said},"traceEvents":[\n{first}')
        for event in events:
            file.write(f",\n{_text(event)}")
        file.write("\n]}\n")


def timeline_events(
    record: RunRecord,
    policy: str = "",
    steps: int | None = None,
    sizes: Sizes | None = None,
) -> Iterator[Event]:
    """Events of a run: names of the tracks, then the rest by time, the longer first.

    Tracks: `compute` has the steps with their waits inside; `stall` splits each wait by the stage
    that it was for, as the metrics do; each stage has the loads that it served, and those that few
    policies use are left out where they served none. Counters: experts that have a slot by the
    cache's decisions, in each tier where there are two, their bytes, and loads asked for and not
    yet done. A load is named by layer, expert and the bytes that it moves over the link, or from
    disk on that track.

    Loads that were fetched ahead are called prefetches, also where a wait is for one. One that was
    given up before any stage served it is only counted, in the step that issued it.

    Args:
        record: simulated or measured.
        policy: named beside the label.
        steps: only the first so many, with all of their loads; None for all.
        sizes: as for `write_timeline`.

    Raises:
        ValueError: the record has no step, or fewer than one is asked for.
    """
    if not record.steps:
        raise ValueError("a record without a step has no timeline")
    if steps is not None and steps < 1:
        raise ValueError(f"a timeline has at least one step, not {steps}")
    shown = record.steps[:steps]
    yield _named("process_name", 0, f"offsim {record.label}" + (f": {policy}" if policy else ""))
    used = {span.stage for step in shown for load in step.loads for span in load.spans}
    for track, name in enumerate(TRACKS):
        if name not in SELDOM or name in used:
            yield from _lane_names(track, 0)
    yield from _Events(shown[0].start, sizes).of(shown)


@dataclass(order=True, slots=True)
class _Due:
    """What starts at a time: a slice of a track, or the change of a counter.

    Attributes:
        at: ns since the first step.
        rank: minus the length of a slice, ns: a slice comes before those that it holds.
        number: keeps the order in which equals were found.
        name: of the slice, or of the counter.
        track: index in TRACKS; None for a counter.
        args: of the slice.
        change: of the counter.
    """

    at: int
    rank: int
    number: int
    name: str = field(compare=False)
    track: int | None = field(default=None, compare=False)
    args: Event = field(default_factory=dict, compare=False)
    change: int = field(default=0, compare=False)


class _Events:
    """Puts the events of steps in order, holding only those that may still be overtaken.

    Args:
        origin: time that becomes 0, s.
        sizes: as for `write_timeline`.
    """

    def __init__(self, origin: float, sizes: Sizes | None) -> None:
        self._origin, self._sizes = origin, sizes
        self._due: list[_Due] = []
        self._number = count()
        self._busy_until: dict[int, list[int]] = {}  # by track, of each lane
        counters = (name for name in COUNTERS if name != OCCUPIED or sizes is not None)
        self._values = dict.fromkeys(counters, 0)
        self._told: dict[str, int] = {}

    def of(self, steps: Sequence[StepRecord]) -> Iterator[Event]:
        """Events by time; a load may outlive the step that asked for it."""
        for name in self._values:
            self._change(0, name, 0)
        for number, step in enumerate(steps):
            yield from self._before(self._ns(step.start))
            self._add_step(number, step)
        yield from self._before(None)

    def _ns(self, time: float) -> int:
        return round(1e9 * (time - self._origin))

    def _slice(self, track: str, name: str, start: int, end: int, args: Event) -> None:
        number = next(self._number)
        due = _Due(start, start - end, number, name, TRACKS.index(track), args)
        heapq.heappush(self._due, due)

    def _change(self, at: int, name: str, by: int) -> None:
        heapq.heappush(self._due, _Due(at, 0, next(self._number), name, change=by))

    def _add_step(self, number: int, step: StepRecord) -> None:
        phase = "prefill" if step.phase == PREFILL else "decode"
        whose = {"request": step.request, "phase": phase}
        start, end = self._ns(step.start), self._ns(step.end)
        told = {
            **whose,
            "step": number,
            "hits": sum(len(d.hits) for d in step.decisions) - step.late,
            "misses": sum(len(d.misses) for d in step.decisions),
            **_of_prefetches(step),
            "stall_us": sum(self._ns(w.end) - self._ns(w.start) for w in step.waits) / 1e3,
        }
        self._slice("compute", f"{phase}, request {step.request}", start, end, told)
        for wait in step.waits:
            self._add_wait(wait, whose)
        for load in step.loads:
            self._add_load(load, whose)
        self._add_decisions(step, start)

    def _add_decisions(self, step: StepRecord, start: int) -> None:
        """Experts get their slots when their loads are asked for, prefetched ones too."""
        asked: dict[int, int] = {}  # when each layer first asked for an expert, ns
        for load in step.loads:
            if not load.ahead:
                asked.setdefault(load.layer, self._ns(load.submitted))
        issued = (self._ns(load.submitted) for load in step.loads if load.ahead)
        for decision in step.decisions:
            for tier in filter(None, (decision, decision.decoded)):
                outside = {*tier.staged, *tier.on_host}
                kept = [(tier.layer, e) for e in tier.misses if e not in outside]
                left = [key for keys in tier.evicted for key in keys]
                if tier.misses:
                    self._keep(asked.get(tier.layer, start), kept, left, tier is not decision)
            times = islice(issued, len(decision.fetched))
            for at, key, gone in zip(times, decision.fetched, decision.displaced, strict=True):
                self._keep(at, [key], gone)

    def _keep(
        self, at: int, kept: Sequence[Key], left: Sequence[Key], decoded: bool = False
    ) -> None:
        """Some experts come into the cache, or its tier of decoded ones, for which others leave."""
        more = len(kept) - len(left)
        self._change(at, RESIDENT, more)
        if self._sizes is None:
            return
        if not decoded:
            more = sum(map(self._sizes.blob, kept)) - sum(map(self._sizes.blob, left))
        self._change(at, OCCUPIED, more * self._sizes.decoded if decoded else more)

    def _add_wait(self, wait: Wait, whose: Event) -> None:
        told = _of_load(wait.load, whose)
        name = _name(wait.load, wait.load.link_bytes)
        start, last = self._ns(wait.start), self._ns(wait.end)
        self._slice("compute", f"wait {name}", start, last, told)
        until = wait.start
        for stage, seconds in split_wait(wait).items():
            until += seconds
            end = last if stage == "hand-over" else min(self._ns(until), last)
            if end > start:
                self._slice("stall", f"{stage} {name}", start, end, {**told, "waited on": stage})
            start = end

    def _add_load(self, load: Load, whose: Event) -> None:
        before = self._ns(load.submitted)
        if load.spans:
            self._change(before, IN_FLIGHT, 1)
            self._change(self._ns(load.spans[-1].end), IN_FLIGHT, -1)
        for span in load.spans:
            start, end = self._ns(span.start), self._ns(span.end)
            told = {**_of_load(load, whose), "queued_us": (start - before) / 1e3}
            moved = load.disk_bytes if span.stage == "disk" else load.link_bytes
            self._slice(span.stage, _name(load, moved), start, end, told)
            before = end

    def _before(self, limit: int | None) -> Iterator[Event]:
        """What is due before a time; all of it for None. A counter is told once a time."""
        while self._due and (limit is None or self._due[0].at < limit):
            at = self._due[0].at
            while self._due and self._due[0].at == at:
                due = heapq.heappop(self._due)
                if due.track is None:
                    self._values[due.name] += due.change
                else:
                    yield from self._complete(due, due.track)
            for name, value in self._values.items():
                if self._told.get(name) != value:
                    self._told[name] = value
                    yield {
                        "name": name,
                        "ph": "C",
                        "ts": at / 1e3,
                        "pid": PROCESS,
                        "tid": 0,
                        "args": {COUNTERS[name]: value},
                    }

    def _complete(self, due: _Due, track: int) -> Iterator[Event]:
        lane = 0
        if TRACKS[track] in STAGES:  # several workers may serve one stage
            ends = self._busy_until.setdefault(track, [0])
            free = (number for number, end in enumerate(ends) if end <= due.at)
            lane = next(free, len(ends))
            if lane == len(ends):
                ends.append(0)
                yield from _lane_names(track, lane)
            ends[lane] = due.at - due.rank
        yield {
            "name": due.name,
            "cat": TRACKS[track],
            "ph": "X",
            "ts": due.at / 1e3,
            "dur": -due.rank / 1e3,
            "pid": PROCESS,
            "tid": _thread(track, lane),
            "args": due.args,
        }


def _name(load: Load, nbytes: int) -> str:
    """Layer, expert and bytes, where it moves any: what is only decoded does not."""
    name = f"L{load.layer} E{load.expert}" + (f", {show_bytes(nbytes)}" if nbytes else "")
    if not load.ahead:
        return name
    return f"prefetch {name}, given up" if _given_up(load) else f"prefetch {name}"


def _given_up(load: Load) -> bool:
    """Whether a prefetch was neither asked for nor there in the end."""
    return load.ahead and not load.used and not load.arrived


def _of_load(load: Load, whose: Event) -> Event:
    ahead = {"ahead": True, "used": load.used} if load.ahead else {}
    return {"layer": load.layer, "expert": load.expert, "bytes": load.link_bytes, **ahead, **whose}


def _of_prefetches(step: StepRecord) -> Event:
    """What a step says of prefetches; nothing where it has none."""
    ahead = [load for load in step.loads if load.ahead]
    if not ahead and not step.late:
        return {}
    return {"late": step.late, "prefetches": len(ahead), "given up": sum(map(_given_up, ahead))}


def _thread(track: int, lane: int) -> int:
    return LANES * (track + 1) + lane


def _named(kind: str, thread: int, name: str) -> Event:
    told = {"name": name}
    return {"name": kind, "ph": "M", "ts": 0, "pid": PROCESS, "tid": thread, "args": told}


def _lane_names(track: int, lane: int) -> Iterator[Event]:
    thread = _thread(track, lane)
    yield _named("thread_name", thread, TRACKS[track] + (f" {lane + 1}" if lane else ""))
    yield {**_named("thread_sort_index", thread, ""), "args": {"sort_index": thread}}


def _text(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"), allow_nan=False)
