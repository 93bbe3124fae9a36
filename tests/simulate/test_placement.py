"""Experts on disk, computed on the host, or kept compressed on the device."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration, CodecFigures, DiskFigures, KeptFigures
from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.record import RunRecord, metrics_of
from offsim.simulate import Costs, predict, simulate
from offsim.simulate.batching import Batching
from offsim.simulate.fast.planning import covers
from offsim.simulate.placement import MOST_TOKENS, best_host_tokens, moving_pays_from
from offsim.simulate.serving import serve
from offsim.trace import Trace
from tests.builders import TOY, calibration, codec_figures, figure, sized, trace_of

from .traffic import lengths, requests_of

ENGINES = ("fast", "simpy")
TRACE = trace_of([[[0, 1]], [[2, 0]], [[1, 0]]])
"""One layer; two experts a step."""
DISK = DiskFigures(label="MEASURED", latency_s=0.5, bytes_per_s=500.0)
CUSZP = {"codec": "cuszp", "bound": 0.5}
SZ3 = {"codec": "sz3", "bound": 0.5}
DECODED = {"keep": "decoded", "decoded_share": 0.5}
KEPT = ({"keep": "compressed"}, {"keep": "both"})


def machine(*codecs: CodecFigures, layers: int = 1, experts: int = 4) -> Calibration:
    """Dense and expert take 1 s, a read 0.5 s + bytes / 500 a second, the host 3 s a token.

    An expert is stored in 6 bytes and a hidden state in 2; blobs are those of the codecs.
    """
    figures = calibration(*codecs, layers=layers, experts=experts)
    host = {"host_expert": sized((1, 3.0), (2, 6.0))}
    compute = figures.compute.model_copy(update=host)
    return figures.model_copy(update={"disk": DISK, "compute": compute})


def raw(**shape: int) -> Calibration:
    return machine(codec_figures(**{"layers": 1, **shape}), **shape)


def spans(record: RunRecord, step: int) -> list[tuple[int, list[tuple[str, float, float]]]]:
    """The loads of a step: the expert, and its stages."""
    loads = record.steps[step].loads
    return [(load.expert, [(s.stage, s.start, s.end) for s in load.spans]) for load in loads]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_blob_that_host_memory_lacks_comes_from_disk_by_hand(engine: Any) -> None:
    # Host memory holds blobs 0 and 1, and the device 0, which comes first.
    record = simulate(TRACE, Policy(slots=1, host_bytes=2000), raw(), 1000.0, engine=engine)
    assert [step.end - step.start for step in record.steps] == pytest.approx([4, 5.5, 3])
    # Blob 2 is read for 0.5 + 1000 / 500 s; compute waits for it from 6.0, 1 s after the lookup.
    assert spans(record, 1) == [(2, [("disk", 5.0, 7.5), ("link", 7.5, 8.5)])]
    # It made 0 leave, so that 1 is still in host memory.
    assert [d.from_disk for d in record.decisions()] == [(), ((0, 2),), ()]
    metrics = metrics_of(record)
    assert metrics.disk_bytes == 1000
    assert metrics.decode_stall_s["disk"] == pytest.approx(1.5 / 2)
    assert metrics.decode_stall_s["link"] == pytest.approx(1.0 / 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_host_computes_is_not_moved_by_hand(engine: Any) -> None:
    # The host takes 3 s for a token; its hidden state of 2 B there and back takes 1 s at 4 B/s.
    record = simulate(TRACE, Policy(slots=1, host_tokens=1), raw(), 4.0, engine=engine)
    assert [step.end - step.start for step in record.steps] == pytest.approx([8, 8, 8])
    assert spans(record, 0) == [
        (0, [("host compute", 1.0, 4.0), ("link", 4.0, 5.0)]),
        (1, [("host compute", 4.0, 7.0), ("link", 7.0, 8.0)]),
    ]
    assert [d.on_host for d in record.decisions()] == [(0, 1), (2, 0), (1, 0)]
    metrics = metrics_of(record)
    assert (metrics.hit_rate, metrics.link_bytes) == (0, 6 * 4)
    # Of each step 4 s of the first and 3 s of the second wait for the host, and 1 s for the link.
    assert metrics.decode_stall_s["host compute"] + metrics.decode_stall_s["link"] == 7


@pytest.mark.parametrize("engine", ENGINES)
def test_an_expert_that_serves_more_tokens_is_moved_by_hand(engine: Any) -> None:
    # A prompt of two tokens: expert 0 serves both and is moved for 2 s, 1 and 2 serve one.
    trace = requests_of([(2, 0)], layers=1, experts=4)
    ids = trace.arrays() | {"experts": trace.experts.copy()}
    ids["experts"][:] = [[[0, 1]], [[0, 2]]]
    record = simulate(Trace(trace.info, **ids), Policy(host_tokens=1), raw(), 500.0, engine=engine)
    (decision,) = record.decisions()
    assert (decision.misses, decision.on_host, decision.staged) == ((0, 1, 2), (1, 2), ())
    assert [stage for _, path in spans(record, 0) for stage, _, _ in path] == [
        "link",
        *("host compute", "link") * 2,
    ]
    # Dense 1 s (2 tokens: 2 s), then 0 is there after 2 s and takes 2 s, 1 and 2 take the host 6 s.
    assert record.steps[0].end == pytest.approx(2 + 6 + 4 / 500)


@pytest.mark.parametrize("engine", ENGINES)
def test_compressed_experts_are_decoded_at_each_use_by_hand(engine: Any) -> None:
    # Room for one decoded expert of 6 B holds three blobs of 2 B, which take 2 s and 0.5 s.
    figures = machine(codec_figures(**CUSZP, layers=1, blob_bytes=2, decode_s=0.5))
    policy = Policy(**CUSZP, slots=1, keep="compressed")
    record = simulate(TRACE, policy, figures, 1.0, engine=engine)
    assert [step.end - step.start for step in record.steps] == pytest.approx([6.5, 4.5, 3.5])
    assert spans(record, 1) == [
        (2, [("link", 7.5, 9.5), ("device decode", 9.5, 10.0)]),
        (0, [("device decode", 7.5, 8.0)]),
    ]
    assert spans(record, 2) == [
        (1, [("device decode", 12.0, 12.5)]),
        (0, [("device decode", 12.5, 13.0)]),
    ]
    metrics = metrics_of(record)
    assert metrics.link_bytes == 3 * 2
    assert metrics.hit_rate == pytest.approx(3 / 6)
    assert repr(predict(TRACE, policy, figures, 1.0, engine=engine)) == repr(metrics)
    with_room = simulate(TRACE, policy.model_copy(update={"slots": 0}), figures, 1.0)
    assert metrics_of(with_room).hit_rate == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_decoded_at_each_use_has_figures_of_its_own_by_hand(engine: Any) -> None:
    # Decoding 1 s behind the link and 0.25 s from the device; an expert takes 0.5 s right after it.
    # Asking takes a decoder 0.1 s, and what comes over the link 0.3 s and 0.2 s of overshoot.
    codec = codec_figures(**CUSZP, layers=1, blob_bytes=2, decode_s=1.0)
    kept = KeptFigures(decode_s=figure(0.25), expert=sized((1, 0.5)))
    figures = machine(codec.model_copy(update={"kept": kept}))
    between = {"start_s": figure(0.1), "between_s": figure(0.3)}
    handover = figures.handover.model_copy(update=between)
    link = figures.link.model_copy(update={"overshoot_s": figure(0.2)})
    figures = figures.model_copy(update={"handover": handover, "link": link})
    policy = Policy(**CUSZP, slots=1, keep="compressed")
    record = simulate(TRACE, policy, figures, 2.0, engine=engine)
    # Dense 1 s; 0.1 and 1 s on the link, 0.5 and 1 s for the decoder, then 0.5 s; the second
    # comes meanwhile, and is decoded 1 s later.
    assert record.steps[0].end == pytest.approx(1 + 1.1 + 1.5 + 1 + 0.5)
    assert [round(end - start, 9) for _, path in spans(record, 2) for _, start, end in path] == [
        0.25,
        0.25,
    ]
    # Dense 1 s, 0.1 and 0.25 s of decoding, 0.5 s, during which the second is decoded, 0.5 s.
    assert record.steps[2].end - record.steps[2].start == pytest.approx(1 + 0.35 + 0.5 + 0.5)
    alike = figures.model_copy(update={"codecs": [codec]})
    unknown = simulate(TRACE, policy, alike, 2.0, engine=engine)
    assert unknown.steps[2].end - unknown.steps[2].start == pytest.approx(1 + 1.1 + 1 + 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_tiers_by_hand(engine: Any) -> None:
    # Two slots: one decoded expert, and 6 B for three blobs of 2 B, which take 2 s and 0.5 s.
    trace = trace_of([*([[0, 1]], [[2, 0]], [[1, 0]]), [[2, 3]]])
    figures = machine(codec_figures(**CUSZP, layers=1, blob_bytes=2, decode_s=0.5))
    policy = Policy(**CUSZP, slots=2, keep="both")
    record = simulate(trace, policy, figures, 1.0, engine=engine)
    assert [step.end - step.start for step in record.steps] == pytest.approx([6.5, 4.5, 3.0, 4.5])
    # 0 is there decoded from its first use on, and in the next two lookups nobody may take its
    # place. 1 is a blob that is decoded in the third, and 2 in the last, where it takes that place.
    assert [len(one) for one in (spans(record, step) for step in range(4))] == [2, 1, 1, 2]
    assert spans(record, 2) == [(1, [("device decode", 12.0, 12.5)])]
    assert spans(record, 3) == [
        (2, [("device decode", 15.0, 15.5)]),
        (3, [("link", 15.0, 17.0), ("device decode", 17.0, 17.5)]),
    ]
    last = record.decisions()[-1]
    assert (last.hits, last.misses, last.evicted) == ((2,), (3,), (((0, 1),),))
    assert last.decoded == Decision(0, (), (2, 3), (((0, 0),), ()), (3,))
    metrics = metrics_of(record)
    assert metrics.link_bytes == 4 * 2
    assert (metrics.hit_rate, metrics.again_rate) == (4 / 8, 2 / 8)
    assert repr(predict(trace, policy, figures, 1.0, engine=engine)) == repr(metrics)


@pytest.mark.parametrize("keep", ["compressed", "both"])
def test_a_prefetched_expert_is_decoded_once_before_its_first_use(keep: str) -> None:
    trace = trace_of([[[0], [0]], [[0], [0]]])
    figures = machine(codec_figures(**CUSZP, layers=2, blob_bytes=2, decode_s=0.5), layers=2)
    policy = Policy(**CUSZP, slots=1, keep=keep, prefetch="oracle")
    record = simulate(trace, policy, figures, 1.0)
    paths = [[stage for stage, _, _ in path] for step in (0, 1) for _, path in spans(record, step)]
    assert paths == [["link", "device decode"]] * 2 + [["device decode"]] * 2
    assert [load.ahead for load in record.steps[0].loads] == [False, True]


@pytest.mark.parametrize(
    ("policy", "figures", "says"),
    [
        ({"host_bytes": 1}, calibration(), "no disk beneath it"),
        ({"host_tokens": 1}, calibration(), "compute.host_expert"),
        (
            {"host_tokens": 1, **CUSZP},
            machine(codec_figures(**CUSZP), layers=3),
            "raw or a host codec",
        ),
        ({"keep": "compressed"}, calibration(), "codec raw does not decode on the device"),
        ({"keep": "both"}, calibration(), "codec raw does not decode on the device"),
        (
            {"keep": "compressed", **SZ3},
            machine(codec_figures(**SZ3), layers=3),
            "take a device codec",
        ),
    ],
)
def test_what_cannot_be_is_refused(policy: dict[str, Any], figures: Calibration, says: str) -> None:
    with pytest.raises(InputError, match=says):
        simulate(TOY, Policy(**policy), figures)


def test_compiled_decisions_leave_placement_to_the_classes() -> None:
    assert covers(Policy())
    for changed in ({"host_bytes": 0}, {"host_tokens": 1}, *KEPT):
        assert not covers(Policy(**changed))
        assert Policy(**changed).placed


def test_a_policy_says_where_its_experts_are() -> None:
    policy = Policy(host_bytes=10, host_tokens=1, keep="compressed")
    said = "raw, lru 4, kept compressed, 10 B of host memory, up to 1 token on the host"
    assert str(policy) == said
    assert str(Policy(host_tokens=2)) == "raw, lru 4, up to 2 tokens on the host"


def test_from_where_on_moving_is_faster() -> None:
    # Moved: 1000 B and 1 s a token; on the host 3 s and 4 B a token. At 100 B/s 10 s against
    # 2.04 s a token more: from 5 tokens on. A host codec decodes first in both cases.
    assert moving_pays_from(Costs(raw(), Policy(), 100.0)) == 5
    assert best_host_tokens(Policy(), raw(), 100.0) == 4
    assert moving_pays_from(Costs(raw(), Policy(), 1e9)) == 1
    assert best_host_tokens(Policy(), raw(), 1e9) == 0
    hosted = machine(codec_figures(**SZ3, layers=1, decode_s=7.0))
    assert moving_pays_from(Costs(hosted, Policy(**SZ3), 0.6)) is not None
    slow = raw().model_copy(
        update={"compute": raw().compute.model_copy(update={"host_expert": sized((1, 0.5))})}
    )
    assert moving_pays_from(Costs(slow, Policy(), 100.0)) is None
    assert best_host_tokens(Policy(), slow, 100.0) == MOST_TOKENS
    with pytest.raises(ValueError, match="how fast the host"):
        moving_pays_from(Costs(calibration(), Policy(), None))
    with pytest.raises(InputError, match="raw or a host codec"):
        best_host_tokens(Policy(**CUSZP), machine(codec_figures(**CUSZP), layers=3), None)


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[Trace, Policy, Calibration]:
    """Traces, policies that place experts in one or several ways, and their machines."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 6))
    trace = requests_of(draw(lengths()), layers, experts, draw(st.integers(0, 99)))
    storage = draw(st.sampled_from([{}, CUSZP, SZ3]))
    compressed = storage is CUSZP
    host_tokens = 0 if compressed else draw(st.sampled_from([0, 1, 2]))
    keep = draw(st.sampled_from(["decoded", "compressed", "both"])) if compressed else "decoded"
    chunk = draw(st.sampled_from([None, None, 2, 300]))
    policy = Policy(
        **storage,
        cache=draw(st.sampled_from(["lru", "lfu", "s3-fifo", "belady"])),
        slots=draw(st.integers(0, experts)),
        scope=draw(st.sampled_from(["layer", "global"])),
        prefetch=draw(st.sampled_from(["none", "none", "last-token", "oracle"])),
        prefetch_bytes=draw(st.sampled_from([None, 9])),
        transfer=Transfer(
            chunk_bytes=chunk,
            pipelined=chunk is not None and draw(st.booleans()),
            channels=draw(st.integers(1, 2)),
        ),
        host_bytes=draw(st.sampled_from([None, 0, 700, 2000, 10**6])),
        host_tokens=host_tokens,
        keep=keep,
        decoded_share=draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])) if keep == "both" else 0.5,
    )
    shape = {"layers": layers, "experts": experts}
    figures = codec_figures(
        **storage or {"codec": "raw"},
        **shape,
        blob_bytes=draw(st.sampled_from([3, 500])),
        decode_s=draw(st.sampled_from([0.0, 0.5])),
        compute_slowdown=draw(st.sampled_from([1.0, 1.5])),
        decode_slowdown=draw(st.sampled_from([1.0, 2.0])),
    )
    return trace, policy, machine(figures, **shape)


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
def test_requests_that_decode_together_have_their_experts_placed_too(
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
def test_what_is_read_from_disk_is_what_host_memory_did_not_hold(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    record = simulate(trace, policy, figures, 250.0)
    size = figures.codecs[0].blob_bytes[0][0]
    everything = size * trace.layers * figures.model.experts
    loads = [load for step in record.steps for load in step.loads]
    read = [load for load in loads if load.disk_bytes]
    log = [key for decision in record.decisions() for key in decision.from_disk]
    assert [(load.layer, load.expert) for load in read] == log
    assert all(load.disk_bytes == size for load in read)
    disked = [load for load in loads if any(span.stage == "disk" for span in load.spans)]
    assert all(load.disk_bytes for load in disked)
    if policy.host_bytes is None or policy.host_bytes >= everything:
        assert not read
    if policy.host_bytes == 0:  # everything that a load brings comes from disk
        assert len(read) == sum(load.link_bytes > 0 for load in loads)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_endless_host_memory_is_as_none_at_all(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    found = [
        simulate(trace, policy.model_copy(update={"host_bytes": size}), figures, 250.0)
        for size in (None, 10**12)
    ]
    assert found[0] == found[1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scenarios())
def test_a_host_that_computes_nothing_changes_nothing(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    policy = policy.model_copy(update={"host_tokens": 0, "host_bytes": None, **DECODED})
    bare = figures.model_copy(
        update={"disk": None, "compute": figures.compute.model_copy(update={"host_expert": []})}
    )
    found = [simulate(trace, policy, one, 250.0) for one in (figures, bare)]
    assert found[0] == found[1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 99), st.integers(2, 5), st.sampled_from(["layer", "global"]))
def test_a_cache_that_holds_compressed_experts_never_hits_less(
    seed: int, slots: int, scope: Any
) -> None:
    trace = requests_of([(0, 12)], 2, 8, seed)
    hits = []
    for blob_bytes in (6, 5, 3, 2, 1):  # of 6
        shape = {"layers": 2, "experts": 8}
        figures = machine(codec_figures(**CUSZP, **shape, blob_bytes=blob_bytes), **shape)
        policy = Policy(**CUSZP, slots=slots, scope=scope, keep="compressed")
        decoded = policy.model_copy(update={"keep": "decoded"})
        if blob_bytes == 6:
            hits.append(predict(trace, decoded, figures, 1.0).hit_rate)
        hits.append(predict(trace, policy, figures, 1.0).hit_rate)
    assert hits == sorted(hits)
    assert hits[0] == hits[1], "a blob of the size of the expert"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_two_tiers_of_which_one_has_no_room_are_the_other_alone(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, _ = scenario
    shape = {"layers": trace.layers, "experts": trace.info.experts_per_layer}
    figures = machine(codec_figures(**CUSZP, **shape, blob_bytes=3, decode_s=0.5), **shape)
    policy = policy.model_copy(update={**CUSZP, "host_tokens": 0})

    def metrics(**changes: Any) -> str:
        return repr(predict(trace, policy.model_copy(update=changes), figures, 250.0))

    both = metrics(keep="both", decoded_share=0.0)
    assert both == metrics(keep="compressed", decoded_share=0.5)
    both = metrics(keep="both", decoded_share=1.0)
    assert both == metrics(**DECODED, prefetch="none")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_what_is_there_as_a_blob_alone_is_decoded_at_this_use(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    record = simulate(trace, policy, figures, 250.0)
    metrics = metrics_of(record)
    loads = [load for step in record.steps for load in step.loads]
    again = sum(not load.link_bytes for load in loads)
    assert metrics.again_rate == again / metrics.lookups <= metrics.hit_rate
    if policy.prefetch != "none" or policy.keep == "decoded":
        assert policy.keep != "decoded" or not again
        return
    log = record.decisions()
    ready = sum(len(one.decoded.hits) for one in log if one.decoded is not None)
    assert again == sum(len(one.hits) for one in log) - ready


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scenarios())
def test_what_the_host_computes_never_comes_in(
    scenario: tuple[Trace, Policy, Calibration],
) -> None:
    trace, policy, figures = scenario
    for decision in simulate(trace, policy, figures, 250.0).decisions():
        assert set(decision.on_host) <= set(decision.misses)
        assert not set(decision.on_host) & set(decision.staged)
        left = dict(zip(decision.misses, decision.evicted, strict=True))
        assert all(left[expert] == () for expert in decision.on_host)
        if not policy.host_tokens:
            assert decision.on_host == ()
