import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim import __version__
from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.policy import Policy
from offsim.policy.tiers import Sizes
from offsim.policy.transfer import Transfer
from offsim.record import Load, RunRecord, Span, StepRecord, Wait
from offsim.record.events import SELDOM, STAGES
from offsim.record.timeline import COUNTERS, TRACKS, timeline_events, write_timeline
from offsim.simulate import simulate
from offsim.units import show_bytes
from tests.builders import calibration, codec_figures, foreseen, trace_of

Event = dict[str, Any]


def by_hand() -> RunRecord:
    """A prompt pass that loads two experts of layer 3, and a step that finds one of them."""
    first = Load(3, 17, 100, 10.25)
    first.spans = [Span("link", 10.5, 11.0), Span("device decode", 11.25, 11.5)]
    second = Load(3, 5, 50, 10.25, [Span("link", 11.0, 11.25), Span("device decode", 11.5, 11.75)])
    prefill = StepRecord(4, 0, 10.0, 12.0, [Decision(3, (), (17, 5), ((), ()))], [first, second])
    prefill.waits = [Wait(10.75, 11.625, first)]
    decode = StepRecord(4, 1, 12.0, 12.5, [Decision(3, (5,), ())])
    return RunRecord("MEASURED", [prefill, decode])


def checked(events: list[Event]) -> list[Event]:
    """The events without the names of tracks, after a look at what the format asks of each."""
    for event in events:
        assert {"name", "ph", "ts", "pid", "tid", "args"} <= set(event), event
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0
        assert event["ph"] in {"X", "C", "M"}
        assert ("dur" in event) == (event["ph"] == "X")
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
    named = {e["tid"] for e in events if e["name"] == "thread_name"}
    ordered = {e["tid"] for e in events if e["name"] == "thread_sort_index"}
    assert {e["tid"] for e in events if e["ph"] == "X"} <= named == ordered
    return [event for event in events if event["ph"] != "M"]


def read(path: Path) -> tuple[dict[str, Any], list[Event]]:
    """The head and the checked events of a file."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    return whole, checked(whole["traceEvents"])


def slices(events: list[Event], track: str) -> list[tuple[str, float, float]]:
    """Name, start and end of the slices of a track, us."""
    return [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == track]


def counted(events: list[Event], counter: str) -> list[tuple[float, int]]:
    unit = COUNTERS[counter]
    return [(e["ts"], e["args"][unit]) for e in events if e["name"] == counter]


def whole_ns(us: float) -> int:
    return round(1e3 * us)


def test_slices_by_hand() -> None:
    events = checked(list(timeline_events(by_hand())))
    assert slices(events, "compute") == [
        ("prefill, request 4", 0.0, 2e6),
        ("wait L3 E17, 100 B", 0.75e6, 1.625e6),
        ("decode, request 4", 2e6, 2.5e6),
    ]
    # The link until 1.0 s, the decode and its queue until 1.5 s.
    assert slices(events, "stall") == [
        ("link L3 E17, 100 B", 0.75e6, 1e6),
        ("device decode L3 E17, 100 B", 1e6, 1.5e6),
        ("hand-over L3 E17, 100 B", 1.5e6, 1.625e6),
    ]
    assert slices(events, "link") == [("L3 E17, 100 B", 0.5e6, 1e6), ("L3 E5, 50 B", 1e6, 1.25e6)]
    assert slices(events, "device decode") == [
        ("L3 E17, 100 B", 1.25e6, 1.5e6),
        ("L3 E5, 50 B", 1.5e6, 1.75e6),
    ]
    assert slices(events, "host decode") == []


def test_arguments_by_hand() -> None:
    events = checked(list(timeline_events(by_hand())))
    load = {"layer": 3, "expert": 5, "bytes": 50, "request": 4, "phase": "prefill"}
    told = [e["args"] for e in events if e["name"] == "L3 E5, 50 B"]
    assert told == [{**load, "queued_us": 0.75e6}, {**load, "queued_us": 0.25e6}]
    step = next(e["args"] for e in events if e["name"].startswith("prefill"))
    assert (step["step"], step["hits"], step["misses"], step["stall_us"]) == (0, 0, 2, 0.875e6)
    waited = [e["args"]["waited on"] for e in events if e.get("cat") == "stall"]
    assert waited == ["link", "device decode", "hand-over"]


def test_counters_by_hand() -> None:
    events = checked(list(timeline_events(by_hand())))
    assert counted(events, "cache") == [(0.0, 0), (0.25e6, 2)]
    assert counted(events, "in flight") == [(0.0, 0), (0.25e6, 2), (1.5e6, 1), (1.75e6, 0)]


def test_what_is_evicted_or_staged_is_not_in_the_cache() -> None:
    record = by_hand()
    third = Load(3, 6, 50, 12.25, [Span("link", 12.25, 12.5)])
    decision = Decision(3, (), (6, 7, 8), (((3, 17), (0, 1)), (), ((3, 5),)), (7,))
    record.steps[1].loads = [third]
    record.steps[1].decisions = [decision]
    assert counted(list(timeline_events(record)), "cache")[-1] == (2.25e6, 2 + 3 - 4)


def test_bytes_of_the_cache_by_hand() -> None:
    record = prefetching()
    record.steps[1].decisions[0] = Decision(
        1, (5,), (8, 4, 3), (((1, 6),), (), ()), (4,), (), (), (3,)
    )
    events = checked(
        list(timeline_events(record, sizes=Sizes(lambda key: 100 * key[0] + key[1], 7)))
    )
    # 9 of layer 0 comes; 5, 6 and 7 of layer 1 as 2 and 3 of layer 0 leave; 8 as 6 leaves.
    assert counted(events, "cache bytes") == [
        (0.0, 0), (0.25e6, 9), (1e6, 9 + 105 + 106 + 107 - 2 - 3), (2e6, 322 + 108 - 106),
    ]  # fmt: skip
    assert [value for _, value in counted(events, "cache")] == [0, 1, 2]
    assert "cache bytes" not in {e["name"] for e in timeline_events(record)}


def test_each_of_two_tiers_is_in_the_cache() -> None:
    record = by_hand()
    record.steps[1].loads = [Load(3, 6, 50, 12.25, [Span("link", 12.25, 12.5)])]
    tier = Decision(3, (), (5, 6), ((), ((3, 17),)))
    record.steps[1].decisions = [Decision(3, (5,), (6,), ((),), decoded=tier)]
    events = checked(list(timeline_events(record, sizes=Sizes(lambda _: 1, 100))))
    first = [value for at, value in counted(events, "cache bytes") if at < 2.25e6][-1]
    assert counted(events, "cache")[-1] == (2.25e6, 2 + 1 + 2 - 1)
    assert counted(events, "cache bytes")[-1] == (2.25e6, first + 1 + 200 - 100)


def prefetching() -> RunRecord:
    """A step whose layer 0 fetches two experts of layer 1 ahead, and a step that waits for one."""
    missed = Load(0, 9, 100, 0.25, [Span("link", 0.25, 0.5), Span("device decode", 0.5, 0.75)])
    wanted = Load(1, 5, 100, 1.0, [Span("link", 1.0, 2.25)], ahead=True)
    wanted.spans.append(Span("device decode", 2.25, 2.5))
    begun = Load(1, 6, 100, 1.0, [Span("host decode", 1.0, 1.5)], ahead=True, used=False)
    never = Load(1, 7, 100, 1.0, ahead=True, used=False)
    first = Decision(0, (), (9,), ((),), (), ((1, 5), (1, 6), (1, 7)), ((), ((0, 2), (0, 3)), ()))
    steps = [StepRecord(0, 1, 0.0, 2.0, [first], [missed, wanted, begun, never])]
    late = Load(1, 8, 100, 2.0, [Span("link", 2.25, 2.5)])
    asked = Decision(1, (5,), (8,), (((1, 6),),))
    steps.append(StepRecord(0, 1, 2.0, 3.0, [asked], [late], [Wait(2.125, 2.5, wanted)], late=1))
    return RunRecord("SIMULATED", steps)


def test_prefetches_are_told_apart() -> None:
    events = checked(list(timeline_events(prefetching())))
    assert slices(events, "link") == [
        ("L0 E9, 100 B", 0.25e6, 0.5e6),
        ("prefetch L1 E5, 100 B", 1e6, 2.25e6),
        ("L1 E8, 100 B", 2.25e6, 2.5e6),
    ]
    assert slices(events, "host decode") == [("prefetch L1 E6, 100 B, given up", 1e6, 1.5e6)]
    assert slices(events, "compute")[2] == ("wait prefetch L1 E5, 100 B", 2.125e6, 2.5e6)
    assert slices(events, "stall") == [
        ("link prefetch L1 E5, 100 B", 2.125e6, 2.25e6),
        ("device decode prefetch L1 E5, 100 B", 2.25e6, 2.5e6),
    ]
    told = {e["name"]: e["args"] for e in events if e["ph"] == "X"}
    wanted = told["prefetch L1 E5, 100 B"]
    assert (wanted["ahead"], wanted["used"]) == (True, True)
    assert told["prefetch L1 E6, 100 B, given up"]["used"] is False
    assert told["wait prefetch L1 E5, 100 B"]["ahead"] is True
    assert "ahead" not in told["L0 E9, 100 B"]
    first, second = (e["args"] for e in events if e["name"] == "decode, request 0")
    assert (first["prefetches"], first["given up"], first["late"]) == (3, 2, 0)
    assert (second["hits"], second["late"], second["misses"]) == (0, 1, 1)


def test_what_has_arrived_was_not_given_up_on_whatever_path() -> None:
    there = Load(1, 5, 100, 1.0, [Span("link", 1.0, 1.5)], ahead=True, used=False, ends_with="link")
    cut = Load(1, 6, 100, 1.0, [Span("link", 1.5, 1.75)], ahead=True, used=False, ends_with=None)
    decision = Decision(0, (), (), (), (), ((1, 5), (1, 6)), ((), ()))
    record = RunRecord("SIMULATED", [StepRecord(0, 1, 0.0, 2.0, [decision], [there, cut])])
    events = checked(list(timeline_events(record)))
    names = [name for name, _, _ in slices(events, "link")]
    assert names == ["prefetch L1 E5, 100 B", "prefetch L1 E6, 100 B, given up"]
    assert events[0]["args"]["given up"] == 1


@pytest.mark.parametrize(("link", "cut"), [(10_000.0, 0), (200.0, 5)])
def test_raw_prefetches_arrive_where_the_link_is_fast(link: float, cut: int) -> None:
    trace = trace_of([[[step % 3, 3 + step % 2]] * 3 for step in range(12)], 8)
    chunks = Transfer(chunk_bytes=250)  # of 1000
    policy = Policy(slots=4, prefetch="noisy-oracle", precision=0.4, transfer=chunks)
    record = simulate(trace, policy, calibration(experts=8), link)
    unused = [ld for step in record.steps for ld in step.loads if ld.ahead and not ld.used]
    assert len(unused) > 20
    for load in unused:
        took = sum(span.end - span.start for span in load.spans)
        assert took > 999 / link or not load.arrived
    events = checked(list(timeline_events(record)))
    assert sum(name.endswith("given up") for name, _, _ in slices(events, "link")) == cut


def test_a_prefetched_expert_has_a_slot_from_when_it_is_issued() -> None:
    events = checked(list(timeline_events(prefetching())))
    # One is missed; three come as two leave; one is missed as one leaves.
    assert counted(events, "cache") == [(0.0, 0), (0.25e6, 1), (1e6, 1 + 3 - 2)]
    assert counted(events, "in flight") == [
        (0.0, 0), (0.25e6, 1), (0.75e6, 0), (1e6, 2), (1.5e6, 1), (2e6, 2), (2.5e6, 0),
    ]  # fmt: skip


def test_the_file_names_label_version_and_policy(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.json"
    write_timeline(by_hand(), path, {"policy": "raw, lru 2", "label": "not this"})
    whole, events = read(path)
    said = {"label": "MEASURED", "offsim": __version__, "policy": "raw, lru 2"}
    assert whole["otherData"] == said
    assert whole["displayTimeUnit"] == "ms"
    assert whole["traceEvents"][0]["args"] == {"name": "offsim MEASURED: raw, lru 2"}
    assert events == checked(list(timeline_events(by_hand())))
    assert [p.name for p in path.parent.iterdir()] == ["t.json"]


def test_tracks_are_named_from_top_to_bottom() -> None:
    events = list(timeline_events(by_hand()))
    names = [e["args"]["name"] for e in events if e["name"] == "thread_name"]
    order = [e["args"]["sort_index"] for e in events if e["name"] == "thread_sort_index"]
    assert names == [track for track in TRACKS if track not in SELDOM]
    assert order == sorted(order)


def test_stages_that_few_policies_use_are_named_where_they_served_something() -> None:
    record = by_hand()
    load = record.steps[0].loads[0]
    load.spans, load.disk_bytes = [Span("disk", 10.25, 10.5), *load.spans], 2500
    events = checked(list(timeline_events(record)))
    assert slices(events, "disk") == [("L3 E17, 2.5 KB", 0.25e6, 0.5e6)]
    names = [e["args"]["name"] for e in timeline_events(record) if e["name"] == "thread_name"]
    assert names == [track for track in TRACKS if track != "host compute"]
    record.steps[0].decisions[0] = Decision(3, (), (17, 5), ((), ()), on_host=(5,))
    cached = counted(list(timeline_events(record)), "cache")
    assert cached[-1] == (0.25e6, 1), "what the host computes gets no slot"


def test_what_is_only_decoded_moves_no_bytes() -> None:
    again = Load(3, 5, 0, 0.0, [Span("device decode", 0.0, 1.0)])
    record = RunRecord("SIMULATED", [StepRecord(0, 1, 0.0, 2.0, [Decision(3, (5,), ())], [again])])
    assert slices(list(timeline_events(record)), "device decode") == [("L3 E5", 0.0, 1e6)]


def test_several_workers_of_a_stage_stand_side_by_side() -> None:
    times = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (3.0, 4.0)]
    loads = [Load(0, n, 1, 0.0, [Span("host decode", *t)]) for n, t in enumerate(times)]
    record = RunRecord("SIMULATED", [StepRecord(0, 1, 0.0, 5.0, [], loads)])
    events = list(timeline_events(record))
    shown = checked(events)
    lanes = [e["tid"] for e in shown if e.get("cat") == "host decode"]
    assert lanes == [400, 401, 400, 401]
    assert "host decode 2" in [e["args"].get("name") for e in events if e["tid"] == 401]


def test_a_load_may_outlive_its_step() -> None:
    record = by_hand()
    record.steps[0].loads[1].spans[1] = Span("device decode", 12.125, 12.25)
    events = checked(list(timeline_events(record)))
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    assert counted(events, "in flight")[-1] == (2.25e6, 0)


def test_a_counter_is_told_once_a_time() -> None:
    first = Load(0, 1, 1, 0.0, [Span("link", 0.0, 1.0)])
    second = Load(0, 2, 1, 1.0, [Span("link", 1.0, 2.0)])
    steps = [StepRecord(0, 1, 0.0, 1.0, [], [first]), StepRecord(0, 1, 1.0, 2.0, [], [second])]
    events = checked(list(timeline_events(RunRecord("SIMULATED", steps))))
    # One load ends as the next is asked for: there is one in flight all the time.
    assert counted(events, "in flight") == [(0.0, 1), (2e6, 0)]


def test_only_the_first_steps() -> None:
    record = by_hand()
    assert list(timeline_events(record, steps=9)) == list(timeline_events(record))
    assert len(slices(list(timeline_events(record, steps=1)), "compute")) == 2
    with pytest.raises(ValueError, match="at least one step, not 0"):
        list(timeline_events(record, steps=0))
    with pytest.raises(ValueError, match="without a step"):
        list(timeline_events(RunRecord("MEASURED")))


def test_nothing_is_left_of_what_could_not_be_written(tmp_path: Path) -> None:
    broken = by_hand()
    broken.steps[1].waits = [Wait(12.0, float("nan"), broken.steps[0].loads[0])]
    with pytest.raises(ValueError, match="NaN"):
        write_timeline(broken, tmp_path / "t.json", {})
    with pytest.raises(ValueError, match="without a step"):
        write_timeline(RunRecord("MEASURED"), tmp_path / "t.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_stays_as_it_was_where_the_next_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_timeline(by_hand(), path, {})
    before = path.read_bytes()
    broken = by_hand()
    broken.steps[1].waits = [Wait(12.0, float("inf"), broken.steps[0].loads[0])]
    with pytest.raises(OverflowError):
        write_timeline(broken, path, {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "t.json").mkdir()
    with pytest.raises(InputError, match=r"t\.json: cannot be written"):
        write_timeline(by_hand(), tmp_path / "t.json", {})
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_timeline(by_hand(), tmp_path / "file" / "t.json", {})


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    """A simulated run of a random trace under a random policy."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = [
        [rng.permutation(experts)[:2].tolist() for _ in range(layers)]
        for _ in range(draw(st.integers(1, 8)))
    ]
    codec, bound = draw(st.sampled_from([("raw", 0.0), ("cuszp", 0.1), ("sz3", 0.1)]))
    shape = {"layers": layers, "experts": experts}
    slow = draw(st.sampled_from([1.0, 1.5]))
    codecs = codec_figures(
        codec,
        bound,
        **shape,
        blob_bytes=draw(st.integers(1, 2000)),
        decode_s=draw(st.floats(0, 2)),
        compute_slowdown=slow,
        decode_slowdown=slow,
    )
    figures = calibration(codecs, **shape, handover_s=draw(st.floats(0, 0.1)))
    policy = Policy(
        codec=codec,
        bound=bound,
        slots=draw(st.integers(0, experts)),
        scope=draw(st.sampled_from(["layer", "global"])),
        prefetch=draw(st.sampled_from(["none", "gate", "last-token", "noisy-oracle"])),
        distance=draw(st.integers(1, layers)),
        precision=0.6,
    )
    trace = foreseen(trace_of(ids, experts), policy.distance)
    return simulate(trace, policy, figures, draw(st.floats(1.0, 1e4)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(records(), st.integers(1, 9))
def test_what_always_holds(record: RunRecord, steps: int) -> None:
    shown = record.steps[:steps]
    events = checked(list(timeline_events(record, steps=steps, sizes=Sizes(lambda _: 3, 5))))
    assert [e["ts"] for e in events] == sorted(e["ts"] for e in events)
    _check_nesting(events)
    _check_sums(events, shown)
    loads = [load for step in shown for load in step.loads]
    cached = [value for _, value in counted(events, "cache")]
    in_flight = [value for _, value in counted(events, "in flight")]
    taken = [(at, 3 * count) for at, count in counted(events, "cache")]
    assert counted(events, "cache bytes") == taken
    assert min(cached + in_flight) >= 0
    assert in_flight[-1] == 0
    assert max(in_flight) <= len(loads)
    decisions = [decision for step in shown for decision in step.decisions]
    left = sum(sum(map(len, one.evicted + one.displaced)) + len(one.staged) for one in decisions)
    named = {load.ahead: 0 for load in loads}
    for event in events:
        if event.get("cat") in STAGES:
            assert event["name"].startswith("prefetch ") == event["args"].get("ahead", False)
            assert show_bytes(event["args"]["bytes"]) in event["name"].split(", ")
            named[event["args"].get("ahead", False)] += 1
    assert all(n == sum(len(ld.spans) for ld in loads if ld.ahead == k) for k, n in named.items())
    assert cached[-1] == len(loads) - left


def _check_nesting(events: list[Event]) -> None:
    """Slices of a track follow each other or lie within each other, to the nanosecond."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = whole_ns(event["ts"])
            tracks[event["tid"]].append((start, start + whole_ns(event["dur"])))
    for thread, times in tracks.items():
        around: list[int] = []
        for start, end in times:
            while around and around[-1] <= start:
                around.pop()
            assert not around or end <= around[-1], thread
            around.append(end)
            assert len(around) <= (2 if thread == 100 else 1)  # waits lie within steps


def _check_sums(events: list[Event], shown: list[StepRecord]) -> None:
    """Durations of the tracks, s, are those of the record, to a nanosecond an event."""
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        if event["ph"] == "X":
            waits = event["name"].startswith("wait ")
            seconds["waits" if waits else event["cat"]] += event["dur"] / 1e6
    spans: dict[str, float] = defaultdict(float)
    for step in shown:
        spans["compute"] += step.end - step.start
        for wait in step.waits:
            spans["waits"] += wait.end - wait.start
            spans["stall"] += wait.end - wait.start
        for load in step.loads:
            for span in load.spans:
                spans[span.stage] += span.end - span.start
    for name in {*seconds, *spans}:
        assert seconds[name] == pytest.approx(spans[name], abs=1e-9 * (len(events) + 1)), name


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    trace = trace_of([[[0, 1]] * 3, [[1, 2]] * 3, [[3, 0]] * 3])
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        record = simulate(trace, Policy(slots=2), calibration(), 1000.0)
        write_timeline(record, path, {"policy": "raw", "link": "1000"})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    times = [e["ts"] for e in read(paths[0])[1]]
    assert all(a <= b for a, b in pairwise(times))
