from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.record import RunRecord, metrics_of
from offsim.simulate import Batching, serve, simulate
from offsim.simulate.serving import LATEST_S
from offsim.simulate.simulation import EngineName
from offsim.trace import DECODE, PREFILL, Trace
from tests.builders import calibration, codec_figures, foreseen, trace_of
from tests.simulate.traffic import lengths, requests_of

LAYERS, EXPERTS = 2, 6
SHAPE: dict[str, int] = {"layers": LAYERS, "experts": EXPERTS}
ONLINE = ["none", "gate", "last-token", "transition", "popularity"]


def figures(**changes: Any) -> Calibration:
    codec = codec_figures(
        "cuszp", 0.1, **SHAPE, decode_s=0.3, compute_slowdown=1.5, decode_slowdown=1.25
    )
    return calibration(codec, **SHAPE, handover_s=0.01, **changes)


def recorded(*asked: Any, **more: Any) -> RunRecord:
    """What `serve` keeps of a simulation whose events are kept."""
    return serve(*asked, **more, events=True).record()


def pair() -> Trace:
    """Two requests of one prompt and one decode token, one layer."""
    made = trace_of([[[0, 1]], [[0, 1]], [[2, 3]], [[0, 2]]])
    arrays = made.arrays() | {
        "request": np.array([0, 0, 7, 7], np.int32),
        "position": np.array([0, 1, 0, 1], np.int32),
        "phase": np.array([PREFILL, DECODE, PREFILL, DECODE], np.uint8),
    }
    return Trace(made.info, **arrays)


def test_two_requests_by_hand() -> None:
    # Dense takes 1 s a token, an expert 1 s for one token, a load 1 s. First step: dense until 1,
    # loads until 2 and 3, experts until 4. Second: the decode token of the first with the prompt
    # of the second, which arrived at 2.5: dense until 6, experts 0 and 1 until 8 while 2 and 3
    # are loaded, then these until 10. Third: both experts are there, 3 s.
    machine = calibration(codec_figures(layers=1), layers=1)
    record = recorded(pair(), Policy(slots=4), machine, [0.0, 2.5], Batching(), 1000.0)
    assert [(step.start, step.end) for step in record.steps] == [(0, 4), (4, 10), (10, 13)]
    assert [step.emitting for step in record.steps] == [(0,), (0, 7), (7,)]
    assert [step.phase for step in record.steps] == [PREFILL, PREFILL, DECODE]
    assert [(d.hits, d.misses) for d in record.decisions()] == [
        ((), (0, 1)),
        ((0, 1), (2, 3)),
        ((0, 2), ()),
    ]
    assert record.arrivals == {0: 0.0, 7: 2.5}
    metrics = metrics_of(record)
    assert metrics.ttft_s == pytest.approx((4.0 + 7.5) / 2)
    assert (metrics.itl_p50_s, metrics.output_tokens) == (pytest.approx((6 + 3) / 2), 4)
    served = serve(pair(), Policy(slots=4), machine, [0.0, 2.5], Batching(), 1000.0)
    assert served.together.tolist() == [1, 2, 1]


def test_the_machine_waits_for_who_is_not_there_yet() -> None:
    machine = calibration(codec_figures(layers=1), layers=1)
    record = recorded(pair(), Policy(slots=4), machine, [86400.0, 0.0], Batching(), 1000.0)
    assert [step.request for step in record.steps] == [7, 7, 0, 0]
    assert record.steps[2].start == 86400
    assert metrics_of(record).ttft_s == pytest.approx((4 + 3) / 2)  # expert 0 is there by then


@st.composite
def cases(draw: st.DrawFn, prefetch: list[str] = ONLINE) -> dict[str, Any]:
    sizes, seed = draw(lengths()), draw(st.integers(0, 2**16))
    trace = foreseen(requests_of(sizes, **SHAPE, seed=seed), 2)
    policy = Policy(
        codec="cuszp",
        bound=0.1,
        cache=draw(st.sampled_from(["lru", "lfu", "random", "weight", "pinned"])),
        slots=draw(st.integers(0, EXPERTS)),
        scope=draw(st.sampled_from(["layer", "global"])),
        prefetch=draw(st.sampled_from(prefetch)),
        distance=draw(st.integers(1, 2)),
    )
    times = st.sampled_from([0.0, 0.0, 1.0, 7.3, 40.0])
    chunk = draw(st.one_of(st.none(), st.integers(1, 6)))
    return {
        "trace": trace,
        "policy": policy,
        "calibration": figures(),
        "arrivals": draw(st.lists(times, min_size=len(sizes), max_size=len(sizes))),
        "batching": Batching(draw(st.integers(1, 4)), chunk),
        "link_bytes_per_s": draw(st.sampled_from([100.0, 1000.0, None])),
        "profile": requests_of([(4, 4)], **SHAPE, seed=seed + 1),
        "noise_seed": draw(st.sampled_from([None, 5])),
    }


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
def test_what_always_holds(case: dict[str, Any]) -> None:
    trace: Trace = case["trace"]
    record = recorded(**case)
    steps = record.steps
    assert len(record.decisions()) == len(steps) * LAYERS
    assert all(a.end <= b.start for a, b in pairwise(steps))
    emitted = Counter(request for step in steps for request in step.emitting)
    for number, request in enumerate(np.unique(trace.request).tolist()):
        rows = trace.phase[trace.request == request]
        assert emitted[request] == int((rows == DECODE).sum()) + int((rows == PREFILL).any())
        arrival = case["arrivals"][number]
        assert all(step.start >= arrival for step in steps if request in step.emitting)
    # To the last bit, whoever tells the time and whether or not events are kept.
    assert recorded(**case, engine="simpy") == record
    kept = repr(metrics_of(record))
    engines: tuple[EngineName, ...] = ("fast", "simpy")
    assert {repr(serve(**case, engine=engine).metrics()) for engine in engines} == {kept}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
def test_one_after_the_other_is_what_simulate_does(case: dict[str, Any]) -> None:
    case["batching"] = Batching(max_batch=1)
    case["arrivals"] = [0.0] * len(case["arrivals"])
    alone = {key: value for key, value in case.items() if key not in {"batching", "arrivals"}}
    assert recorded(**case).steps == simulate(**alone).steps


def test_what_the_rows_ask_for_is_asked_once() -> None:
    trace = requests_of([(3, 4), (2, 5), (0, 6)], **SHAPE)
    machine = calibration(codec_figures(**SHAPE), **SHAPE)
    record = recorded(trace, Policy(slots=EXPERTS), machine, [0, 0, 0], Batching(3))
    rows = [14, 0, 1, 2, 7, 8]  # the third request decodes; the prompts of the others
    for layer, decision in enumerate(record.steps[0].decisions):
        asked = dict.fromkeys(trace.experts[rows, layer].ravel().tolist())
        assert decision.misses == tuple(asked)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"cache": "belady"}, "cache belady looks into the future"),
        ({"prefetch": "oracle"}, "prefetcher oracle looks into the future"),
        ({"prefetch": "noisy-oracle"}, "prefetcher noisy-oracle looks into the future"),
        ({"cache": "best"}, "no cache is called 'best'"),
        ({"prefetch": "best"}, "no prefetcher is called 'best'"),
        ({"prefetch": "popularity"}, "prefetcher popularity needs a profile"),
        ({"prefetch": "gate"}, "gate looks 1 layers ahead and the trace has"),
        ({"codec": "sz3", "bound": 1.0}, "sz3 at bound 1 is not in the calibration"),
    ],
)
def test_policies_that_cannot_be_served(policy: dict[str, Any], says: str) -> None:
    machine = calibration(codec_figures(layers=1), layers=1)
    with pytest.raises(InputError, match=says):
        serve(pair(), Policy(**policy), machine, [0, 0], Batching())


@pytest.mark.parametrize(
    ("arrivals", "says"),
    [
        ([0.0], "1 arrivals are given for the 2 requests"),
        ([0.0, -1.0], "arrives at -1 s; it can be 0 to"),
        ([0.0, float("nan")], "arrives at nan s"),
        ([0.0, LATEST_S + 1.0], r"arrives at 2\.592e\+06 s"),
    ],
)
def test_arrivals_are_times_of_all_requests(arrivals: list[float], says: str) -> None:
    machine = calibration(codec_figures(layers=1), layers=1)
    with pytest.raises(InputError, match=says):
        serve(pair(), Policy(), machine, arrivals, Batching())


def test_shapes_must_agree_and_the_engine_be_known() -> None:
    machine = calibration(codec_figures(layers=1), layers=1)
    engine: Any = "slow"
    with pytest.raises(InputError, match="no engine is called 'slow'; there are fast, simpy"):
        serve(pair(), Policy(), machine, [0, 0], Batching(), engine=engine)
    with pytest.raises(InputError, match="the trace has 1 layers"):
        serve(pair(), Policy(), calibration(), [0, 0], Batching())


def test_it_tells_how_far_it_is() -> None:
    machine = calibration(codec_figures(layers=1), layers=1)
    told: list[float] = []
    serve(pair(), Policy(), machine, [0, 0], Batching(1), tell=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_what_was_not_measured_is_estimated() -> None:
    machine = calibration(codec_figures(layers=1), layers=1)
    link = machine.link.model_copy(update={"label": "ESTIMATED"})
    estimated = machine.model_copy(update={"link": link})
    assert recorded(pair(), Policy(), machine, [0, 0], Batching()).label == "SIMULATED"
    metrics = serve(pair(), Policy(), estimated, [0, 0], Batching()).metrics()
    assert metrics.label == "ESTIMATED"


def test_a_day_later_everything_takes_as_long() -> None:
    trace, machine = requests_of([(3, 4), (2, 5), (0, 6)], **SHAPE), figures()
    policy = Policy(codec="cuszp", bound=0.1, slots=3)
    shared = (trace, policy, machine)
    early = serve(*shared, [0.5, 1.5, 2.5], Batching(2, 2), 1000.0)
    later = [86400.5, 86401.5, 86402.5]
    assert serve(*shared, later, Batching(2, 2), 1000.0).metrics() == early.metrics()
