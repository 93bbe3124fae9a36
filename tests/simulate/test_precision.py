"""Misses of low router weight that are loaded as a coarser blob."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.policy.precision import Low
from offsim.policy.transfer import Transfer
from offsim.record import RunRecord, metrics_of
from offsim.simulate import Costs, predict, simulate
from offsim.simulate.batching import Batching
from offsim.simulate.fast.planning import covers
from offsim.simulate.plan import NONE
from offsim.simulate.serving import serve
from offsim.simulate.simulation import planned
from offsim.trace import Trace
from tests.builders import calibration, codec_figures, trace_of

from .traffic import lengths, requests_of

ENGINES = ("fast", "simpy")
CUSZP, SZ3 = ("cuszp", 0.5), ("sz3", 0.5)


def low(below: float, codec: str = "cuszp", bound: float = 0.5) -> Low:
    return Low(codec=codec, bound=bound, below=below)


def spans(record: RunRecord, step: int) -> list[tuple[int, list[tuple[str, float, float]]]]:
    """The loads of a step: the expert, and its stages."""
    loads = record.steps[step].loads
    return [(load.expert, [(s.stage, s.start, s.end) for s in load.spans]) for load in loads]


def weighed(trace: Trace, weights: list[list[float]]) -> Trace:
    """The trace of one layer with these weights, a row a token."""
    array = np.array(weights, np.float16)[:, None]
    return Trace(trace.info, **{**trace.arrays(), "weights": array})


TRACE = weighed(
    trace_of([[[0, 1]], [[1, 0]], [[1, 0]], [[2, 3]]]),
    [[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.25, 0.75]],
)
"""One layer, two experts a step."""


def machine(*codecs: Any) -> Calibration:
    """Dense and expert take 1 s; raw experts have 1000 B, coarse ones 500 B, decoded in 0.25 s."""
    coarse = codec_figures(*CUSZP, layers=1, blob_bytes=500, decode_s=0.25)
    return calibration(*(codecs or (codec_figures(layers=1), coarse)), layers=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_miss_of_low_weight_moves_fewer_bytes_by_hand(engine: Any) -> None:
    policy = Policy(slots=2, low=low(0.3))
    record = simulate(TRACE, policy, machine(), 1000.0, engine=engine)
    # Step 0: 0 is there after 1 s, 1 comes coarse while it runs. Step 1: both are there.
    assert spans(record, 0) == [
        (0, [("link", 1.0, 2.0)]),
        (1, [("link", 2.0, 2.5), ("device decode", 2.5, 2.75)]),
    ]
    # Step 2: 1 weighs more, and what is there of it is coarse. It comes in full while 0 runs.
    assert spans(record, 2) == [(1, [("link", 8.0, 9.0)])]
    # Step 3: 2 is there after 0.75 s, 3 after 1.5 s.
    assert spans(record, 3) == [
        (2, [("link", 11.0, 11.5), ("device decode", 11.5, 11.75)]),
        (3, [("link", 11.5, 12.5)]),
    ]
    assert [step.end - step.start for step in record.steps] == pytest.approx([4, 3, 3, 3.75])
    assert [d.coarse for d in record.decisions()] == [(1,), (), (), (2,)]
    assert record.decisions()[2].evicted == (((0, 1),),)
    metrics = metrics_of(record)
    assert metrics.link_bytes == 3 * 1000 + 2 * 500
    assert metrics.hit_rate == pytest.approx(3 / 8)
    assert repr(predict(TRACE, policy, machine(), 1000.0, engine=engine)) == repr(metrics)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_coarse_load_moves_in_its_own_chunks(engine: Any) -> None:
    policy = Policy(slots=2, low=low(0.3), transfer=Transfer(chunk_bytes=300))
    trace, figures = TRACE, machine()
    plan, _ = planned(trace, policy, Costs(figures, policy, 1000.0), None, None)
    assert plan.kinds.chunks[plan.kind].tolist() == [4, 2, 4, 2, 4]
    record = simulate(trace, policy, figures, 1000.0, engine=engine)
    assert metrics_of(record).link_bytes == 4000


def test_host_codecs_save_decoding_and_no_bytes() -> None:
    fine = codec_figures("sz3", 0.25, layers=1, decode_s=2.0)
    figures = machine(fine, codec_figures(*SZ3, layers=1, decode_s=0.5))
    policy = Policy(codec="sz3", bound=0.25, slots=2, low=low(0.3, *SZ3))
    record = simulate(TRACE, policy, figures, 6.0)  # an expert is stored in 6 B
    assert spans(record, 0) == [
        (0, [("host decode", 1.0, 3.0), ("link", 3.0, 4.0)]),
        (1, [("host decode", 3.0, 3.5), ("link", 4.0, 5.0)]),
    ]


def test_compute_and_decoding_slow_each_other_by_the_mean_of_both_codecs() -> None:
    def rates(policy: Policy, *codecs: Any) -> tuple[int, int]:
        found = Costs(machine(*codecs), policy, None).machine()
        return found.compute_rate, found.decode_rate

    def figures(codec: str, bound: float, decode_s: float, slowdown: float) -> Any:
        slow = {"compute_slowdown": slowdown, "decode_slowdown": slowdown}
        return codec_figures(codec, bound, layers=1, decode_s=decode_s, **slow)

    raw, both = figures("raw", 0.0, 0.0, 1.0), Policy(low=low(0.3))
    # Weighted by what each takes to decode: copying raw does not count, 1 s and 3 s do.
    one = rates(Policy(codec="cuszp", bound=0.5), figures(*CUSZP, 2.0, 1.5))
    assert rates(both, raw, figures(*CUSZP, 2.0, 1.5)) == one
    fine = figures("cuszp", 0.25, 3.0, 1.0)
    mixed = Policy(codec="cuszp", bound=0.25, low=low(0.3))
    assert rates(mixed, fine, figures(*CUSZP, 1.0, 3.0)) == one
    # Where nothing takes time to decode, the plain mean.
    assert rates(both, raw, figures(*CUSZP, 0.0, 2.0)) == one


def test_noise_is_drawn_from_the_spread_of_the_blob_that_moves() -> None:
    spread = {"p10": 0.2, "p90": 0.9}
    coarse = codec_figures(*CUSZP, layers=1, blob_bytes=500, decode_s=0.5)
    coarse = coarse.model_copy(update={"decode_s": coarse.decode_s.model_copy(update=spread)})
    figures = machine(codec_figures(layers=1, decode_s=0.5), coarse)
    record = simulate(TRACE, Policy(slots=2, low=low(0.3)), figures, 1000.0, noise_seed=3)
    decodes = [
        [span.end - span.start for span in load.spans if span.stage == "device decode"]
        for step in record.steps
        for load in step.loads
    ]
    assert [times == pytest.approx([0.5]) for times in decodes] == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("policy", "codecs", "says"),
    [
        ({}, (), "cuszp at bound 0.5 is not in the calibration"),
        ({}, (codec_figures(*SZ3),), "cuszp at bound 0.5 is not in the calibration"),
        (
            {"codec": "sz3", "bound": 0.5},
            (codec_figures(*SZ3), codec_figures(*CUSZP)),
            "sz3 decodes on the host and cuszp, for misses of low weight, on the device",
        ),
        ({"host_tokens": 1}, (codec_figures(*CUSZP),), "come coarse only where host memory holds"),
        ({"host_bytes": 10}, (codec_figures(*CUSZP),), "not with raw, cuszp 0.5 below a weight of"),
        ({"keep": "compressed"}, (codec_figures(*CUSZP),), "keeps experts decoded, not with"),
    ],
)
def test_what_cannot_be_is_refused(
    policy: dict[str, Any], codecs: tuple[Any, ...], says: str
) -> None:
    figures = calibration(codec_figures(), *codecs)
    trace = requests_of([(1, 2)], 3, 4)
    with pytest.raises(InputError, match=says):
        simulate(trace, Policy(low=low(0.3), **policy), figures)


def test_compiled_decisions_leave_it_to_the_classes() -> None:
    assert covers(Policy())
    assert not covers(Policy(low=low(0.3)))


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[Trace, Policy, Calibration]:
    """Traces with weights, policies with two blobs, and their machines."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    trace = requests_of(draw(lengths()), layers, experts, draw(st.integers(0, 99)))
    own, coarse = draw(
        st.sampled_from(
            [
                (("raw", 0.0), CUSZP),
                (("cuszp", 0.25), CUSZP),
                (("cuszp", 0.25), ("raw", 0.0)),
                (("sz3", 0.25), SZ3),
            ]
        )
    )
    chunk = draw(st.sampled_from([None, None, 2, 300]))
    policy = Policy(
        codec=own[0],
        bound=own[1],
        cache=draw(st.sampled_from(["lru", "lfu", "weight", "s3-fifo", "belady"])),
        slots=draw(st.integers(0, experts)),
        scope=draw(st.sampled_from(["layer", "global"])),
        prefetch=draw(st.sampled_from(["none", "none", "last-token", "transition", "oracle"])),
        distance=draw(st.integers(1, 2)),
        prefetch_bytes=draw(st.sampled_from([None, 1500])),
        transfer=Transfer(
            chunk_bytes=chunk,
            pipelined=chunk is not None and draw(st.booleans()),
            channels=draw(st.integers(1, 2)),
        ),
        low=low(draw(st.sampled_from([0.2, 0.5, 0.7, 1.0])), *coarse),
    )
    shape = {"layers": layers, "experts": experts}
    slowdowns = st.sampled_from([1.0, 1.5])
    figures = [
        codec_figures(
            *storage,
            **shape,
            blob_bytes=draw(st.sampled_from([3, 200, 1000])),
            decode_s=draw(st.sampled_from([0.0, 0.5])),
            compute_slowdown=draw(slowdowns),
            decode_slowdown=draw(slowdowns),
        )
        for storage in (own, coarse)
    ]
    return trace, policy, calibration(*figures, **shape)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scenarios(), st.sampled_from([None, 7]))
def test_engines_agree_with_each_other_and_with_the_metrics_of_the_record(
    scenario: tuple[Trace, Policy, Calibration], noise: int | None
) -> None:
    trace, policy, figures = scenario
    shared = (trace, policy, figures, 250.0, None)
    fast, slow = (simulate(*shared, engine, noise) for engine in ENGINES)  # type: ignore[arg-type]
    assert fast == slow
    metrics = repr(metrics_of(fast))  # nan differs from itself, not in print
    assert repr(predict(*shared, "fast", noise)) == metrics
    assert repr(predict(*shared, "simpy", noise)) == metrics


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scenarios())
def test_requests_that_decode_together_load_coarse_too(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    oracles = {"cache": {"belady": "lru"}, "prefetch": {"oracle": "last-token"}}
    online = {n: names.get(getattr(policy, n), getattr(policy, n)) for n, names in oracles.items()}
    policy = policy.model_copy(update=online)
    arrivals = [0.0] * len(set(trace.request.tolist()))
    shared = (trace, policy, figures, arrivals, Batching(3, 2), 250.0, None)
    fast, slow = (
        serve(*shared, engine, events=True).record()  # type: ignore[arg-type]
        for engine in ENGINES
    )
    assert fast == slow
    assert repr(serve(*shared).metrics()) == repr(metrics_of(fast))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_bytes_are_those_of_the_blobs_that_came(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    own, coarse = (codec.blob_bytes[0][0] for codec in figures.codecs)
    if figures.codecs[0].placement == "host":
        own = coarse = figures.model.expert_bytes
    for step in simulate(trace, policy, figures, 250.0).steps:
        loads = iter(step.loads)
        for decision in step.decisions:
            for expert in decision.misses:
                load = next(loads)
                assert (load.layer, load.expert, load.ahead) == (decision.layer, expert, False)
                assert load.link_bytes == (coarse if expert in decision.coarse else own)
            for key in decision.fetched:
                load = next(loads)
                assert (load.layer, load.expert, load.ahead) == (*key, True)
                assert load.link_bytes == own
        assert next(loads, None) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_where_no_weight_is_low_it_is_as_without_a_second_blob(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    own, coarse = figures.codecs
    alike = {name: getattr(own, name) for name in ("compute_slowdown", "decode_slowdown")}
    figures = figures.model_copy(update={"codecs": [own, coarse.model_copy(update=alike)]})
    even = Trace(trace.info, **{**trace.arrays(), "weights": np.full_like(trace.weights, 0.5)})
    tiny = low(0.5, figures.codecs[1].codec, figures.codecs[1].bound)
    found = [
        simulate(even, policy.model_copy(update={"low": one}), figures, 250.0)
        for one in (tiny, None)
    ]
    assert found[0] == found[1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scenarios())
def test_a_second_blob_that_is_no_other_only_comes_again(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    assert policy.low is not None
    same = policy.model_copy(update={"low": low(policy.low.below, policy.codec, policy.bound)})
    plain = policy.model_copy(update={"low": None})
    found, expected = (simulate(trace, one, figures, 250.0) for one in (same, plain))
    again = [
        sum((one.layer, miss) in left for miss, left in zip(one.misses, one.evicted, strict=True))
        for one in found.decisions()
    ]
    costs = Costs(figures, plain, None)
    assert metrics_of(found).link_bytes == metrics_of(expected).link_bytes + sum(
        count * costs.link_bytes(0, 0) for count in again
    )
    if not any(again):
        for step in found.steps:
            step.decisions = [replace(one, coarse=()) for one in step.decisions]
        assert found == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_who_comes_again_is_waited_for_as_a_miss(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    plan, log = planned(trace, policy, Costs(figures, policy, 250.0), None, None)
    assert len(plan.kind) == sum(len(one.misses) + len(one.fetched) for one in log)
    use = 0
    for lookup, decision in enumerate(log):
        first = int(plan.loads_to[lookup - 1]) if lookup else 0
        demands = set(range(first, int(plan.demands_to[lookup])))
        asked = set(plan.load[use : plan.uses_to[lookup]].tolist()) - {NONE}
        assert demands <= asked
        assert len(demands) == len(decision.misses)
        use = int(plan.uses_to[lookup])
