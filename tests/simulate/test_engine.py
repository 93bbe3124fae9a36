from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.evictions import Key
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.record import RunRecord, metrics_of
from offsim.simulate import simulate
from offsim.simulate.simulation import EngineName
from offsim.trace import Trace
from tests.builders import calibration, codec_figures, figure, trace_of

TOY = trace_of(
    [
        [[0, 1], [0, 1], [2, 3]],
        [[0, 2], [0, 1], [2, 3]],
        [[0, 1], [2, 3], [2, 3]],
        [[3, 0], [0, 1], [1, 2]],
        [[0, 3], [1, 0], [2, 1]],
    ]
)
"""3 layers x 4 experts x 5 steps, top-2."""


def test_toy_trace_by_hand() -> None:
    record = simulate(TOY, Policy(slots=2), calibration(), 1000.0)
    hits = [[len(d.hits) for d in step.decisions] for step in record.steps]
    # Layer 0: (0 1) (0 2) (0 1) (3 0) (0 3); layer 1: (0 1) (0 1) (2 3) (0 1) (1 0);
    # layer 2: (2 3) x 3, (1 2), (2 1).
    assert hits == [[0, 0, 0], [1, 2, 2], [1, 0, 2], [1, 0, 1], [2, 2, 2]]
    # A step: 3 dense of 1 s and 6 experts of 1 s; a miss is 1000 bytes at 1000 bytes/s.
    # Both missing: 1 s for the first, whose compute hides the second's transfer: +1 s.
    # One missing: the resident one's compute hides the transfer: +0 s.
    assert [step.end - step.start for step in record.steps] == pytest.approx([12, 9, 10, 10, 9])


def test_stall_goes_to_the_stage_that_was_waited_on() -> None:
    trace = trace_of([[[0, 1]]])
    figures = calibration(
        codec_figures("cuszp", 0.1, layers=1, blob_bytes=1000, decode_s=3.0), layers=1
    )
    record = simulate(trace, Policy(codec="cuszp", bound=0.1, slots=2), figures, 1000.0)
    # Link 1 s and 2 s, decode 1..4 s and 4..7 s; the first expert runs 4..5 s.
    (first, second) = record.steps[0].waits
    assert (first.start, first.end) == (1.0, 5.0)  # after 1 s of the dense part
    assert [(s.stage, s.start, s.end) for s in second.load.spans] == [
        ("link", 2.0, 3.0),
        ("device decode", 5.0, 8.0),
    ]
    assert record.steps[0].end == pytest.approx(9.0)


def test_host_decode_comes_before_the_link_and_stored_bytes_cross_it() -> None:
    trace = trace_of([[[0, 1]]])
    figures = calibration(codec_figures("sz3", 0.1, layers=1, blob_bytes=2, decode_s=3.0), layers=1)
    record = simulate(trace, Policy(codec="sz3", bound=0.1, slots=2), figures, 6.0)
    spans = [(s.stage, s.start, s.end) for s in record.steps[0].loads[0].spans]
    # Unpacking takes nothing here, so it is no stage of the load's path.
    assert spans == [("host decode", 1.0, 4.0), ("link", 4.0, 5.0)]
    assert metrics_of(record).link_bytes == 2 * 6  # an expert is 3 values of 2 bytes


def test_a_codec_that_was_not_calibrated_is_named() -> None:
    with pytest.raises(InputError, match=r"cuszp at bound 0\.5 is not in the calibration"):
        simulate(TOY, Policy(codec="cuszp", bound=0.5), calibration())


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match="3 layers of 4 experts, the calibration 2 of 4"):
        simulate(TOY, Policy(), calibration(codec_figures(layers=2), layers=2))


class Scenario(NamedTuple):
    """What can be simulated, and sizes that are known beforehand.

    Attributes:
        nbytes: [layers][experts] of each expert over the link.
        slowdown: of compute while a blob is decoded, and of decoding while compute works.
    """

    trace: Trace
    policy: Policy
    figures: Calibration
    bytes_per_s: float
    engine: EngineName
    nbytes: list[list[int]]
    slowdown: float

    def run(self, share: float = 1.0, **policy: object) -> RunRecord:
        """What happens over a share of the link, under a policy that differs in some fields."""
        changed = self.policy.model_copy(update=policy)
        speed = share * self.bytes_per_s
        return simulate(self.trace, changed, self.figures, speed, engine=self.engine)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A random trace under a random policy and engine; blobs differ in size."""
    layers, experts, steps = (
        draw(st.integers(1, 3)),
        draw(st.integers(2, 6)),
        draw(st.integers(1, 8)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = [[rng.permutation(experts)[:2].tolist() for _ in range(layers)] for _ in range(steps)]
    codec, bound = draw(st.sampled_from([("raw", 0.0), ("cuszp", 0.1), ("sz3", 0.1)]))
    shape = {"layers": layers, "experts": experts}
    slowdown = draw(st.sampled_from([1.0, 1.5, 3.0]))
    blobs = rng.integers(1, draw(st.integers(2, 2000)), (layers, experts)).tolist()
    figures = calibration(
        codec_figures(
            codec,
            bound,
            **shape,
            decode_s=draw(st.floats(0, 2)),
            compute_slowdown=slowdown,
            decode_slowdown=slowdown,
        ).model_copy(update={"blob_bytes": blobs}),
        **shape,
        handover_s=draw(st.floats(0, 0.1)),
    )
    prefetch = draw(st.sampled_from(["none", "none", "last-token", "transition", "oracle"]))
    chunk = draw(st.sampled_from([None, 300]))
    channels, decoders = draw(st.sampled_from([(1, 1), (1, 1), (2, 3)]))
    scope = draw(st.sampled_from(["layer", "global"]))
    policy = Policy(
        codec=codec,
        bound=bound,
        slots=draw(st.integers(0, experts)),
        extra=draw(st.integers(0, 2)) if scope == "global" else 0,
        cache=draw(st.sampled_from(["lru", "s3-fifo"])),
        scope=scope,
        prefetch=prefetch,
        transfer=Transfer(
            chunk_bytes=chunk,
            pipelined=chunk is not None and draw(st.booleans()),
            channels=channels,
            decoders=decoders,
        ),
    )
    stored = [[6] * experts] * layers  # an expert is 3 values of 2 bytes
    return Scenario(
        trace_of(ids, experts),
        policy,
        figures,
        draw(st.floats(1.0, 1e4)),
        draw(st.sampled_from(["fast", "simpy"])),
        stored if codec == "sz3" else blobs,
        slowdown,
    )


def asked_for(record: RunRecord) -> list[Key]:
    """What is loaded, by the decisions."""
    missed = [(d.layer, expert) for d in record.decisions() for expert in d.misses]
    return missed + [key for d in record.decisions() for key in d.fetched]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scenarios())
def test_what_always_holds(one: Scenario) -> None:
    fast, slow = one.run(), one.run(0.5)
    makespan, transfer = fast.steps[-1].end, one.policy.transfer
    assert fast.decisions() == slow.decisions()
    if one.slowdown == 1.0 and one.policy.prefetch == "none":
        # With interference a slower link can end earlier: it keeps decode and compute apart. And
        # with prefetches on their way it can change who goes first.
        assert slow.steps[-1].end >= makespan * (1 - 1e-9)
    loads = [load for step in fast.steps for load in step.loads]
    assert sorted((load.layer, load.expert) for load in loads) == sorted(asked_for(fast))
    sizes = [one.nbytes[layer][expert] for layer, expert in asked_for(fast)]
    assert metrics_of(fast).link_bytes == sum(sizes) == sum(load.link_bytes for load in loads)
    moved = sum(load.link_bytes for load in loads if not load.ahead)
    carried = moved / one.bytes_per_s / transfer.channels
    compute = one.trace.tokens * one.trace.layers * 3.0
    assert makespan >= max(compute, carried) * (1 - 1e-9)
    servers = {"link": transfer.channels, "host decode": transfer.decoders}
    figures = one.figures.codecs[0]
    decodes = figures.decode_s.value
    for stage in ("host decode", "link", "device decode"):
        many = servers.get(stage, 1)
        # What has passed the stage by the end has kept it busy for its own time at least, however
        # often it was overtaken between its chunks.
        passed = [ld for ld in loads if ld.arrived and ld.spans[-1].end <= makespan]
        if stage == "link":
            busy = sum(load.link_bytes for load in passed) / one.bytes_per_s
        else:
            busy = decodes * len(passed) * (stage == f"{figures.placement} decode")
        assert busy <= makespan * many * (1 + 1e-9)
        done = [s for ld in loads if ld.used for s in ld.spans if s.stage == stage]
        if not any(ld.ahead for ld in loads) and not transfer.pipelined:
            # One at a time for each server. A prefetch may be overtaken between its chunks, and
            # pipelined chunks wait for each other.
            assert sum(s.end - s.start for s in done) <= makespan * many * (1 + 1e-9)
            starts = sorted(s.start for s in done)
            ends = sorted(s.end for s in done)
            assert all(end <= start for end, start in zip(ends, starts[many:], strict=False))
    metrics = metrics_of(fast)
    if metrics.output_tokens > 1:
        parts = metrics.decode_compute_s + sum(metrics.decode_stall_s.values())
        assert parts == pytest.approx(metrics.tpot_s)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scenarios())
def test_an_infinite_cache_misses_each_expert_once_and_then_only_computes(one: Scenario) -> None:
    record = one.run(slots=one.trace.info.experts_per_layer, extra=0, prefetch="none")
    found: set[Key] = set()
    for step in record.steps:
        wanted = {(d.layer, e) for d in step.decisions for e in (*d.hits, *d.misses)}
        missed = {(load.layer, load.expert) for load in step.loads}
        assert missed == wanted - found
        if not missed:
            assert step.end - step.start == pytest.approx(one.trace.layers * 3.0)
        found |= wanted
    assert len(asked_for(record)) == len(found)
    sizes = [one.nbytes[layer][expert] for layer, expert in found]
    assert metrics_of(record).link_bytes == sum(sizes)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scenarios())
def test_without_a_cache_every_lookup_misses_and_each_step_goes_as_if_alone(one: Scenario) -> None:
    nothing: dict[str, object] = {"slots": 0, "extra": 0, "prefetch": "none"}
    record = one.run(**nothing)
    assert metrics_of(record).hit_rate == 0
    assert len(asked_for(record)) == one.trace.experts.size
    for step, ids in zip(record.steps, one.trace.experts.tolist(), strict=True):
        alone = one._replace(trace=trace_of([ids], one.trace.info.experts_per_layer))
        (only,) = alone.run(**nothing).steps
        assert step.end - step.start == pytest.approx(only.end - only.start)


@pytest.mark.parametrize("engine", ["fast", "simpy"])
def test_an_oracle_hides_what_fits_behind_compute(engine: str) -> None:
    # A layer computes for 3 s, its two experts arrive in 2, the second while the first one runs: it
    # is late at the lookup, and nobody waits for it. Only the first layer of all waits.
    record = simulate(TOY, Policy(slots=4, prefetch="oracle"), calibration(), 1000.0, engine=engine)
    assert [len(step.waits) for step in record.steps] == [1, 0, 0, 0, 0]
    assert sum(step.late for step in record.steps) == 3
    assert record.steps[-1].end == pytest.approx(5 * 9 + 1)


@pytest.mark.parametrize("engine", ["fast", "simpy"])
def test_a_prefetch_that_is_on_its_way_is_late_and_waited_for(engine: str) -> None:
    trace = trace_of([[[0, 1], [2, 3]]])
    policy = Policy(slots=2, prefetch="oracle")
    record = simulate(trace, policy, calibration(layers=2), 400.0, engine=engine)
    # Layer 0: dense 1 s, loads 2.5 s each, experts 3.5..4.5 and 6..7. Then two prefetches are
    # issued at 7, while layer 1 computes its dense part until 8; they come at 9.5 and 12.
    (step,) = record.steps
    assert (step.late, len(step.loads), metrics_of(record).late_rate) == (2, 4, 0.5)
    assert [(w.start, w.end) for w in step.waits[2:]] == [(8.0, 9.5), (10.5, 12.0)]
    assert step.end == pytest.approx(13.0)


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(InputError, match="no engine is called 'slow'; there are fast, simpy"):
        simulate(TOY, Policy(), calibration(), engine="slow")  # type: ignore[arg-type]


def test_what_would_take_too_long_to_count_is_refused() -> None:
    with pytest.raises(InputError, match="may take 3e\\+07 s, longer than the 4e\\+06 s"):
        simulate(TOY, Policy(slots=0), calibration(), 0.001)


def test_noise_is_seeded_and_spreads_around_the_calibrated_times() -> None:
    figures = calibration()
    noisy = figures.compute.expert[0].seconds.model_copy(update={"p10": 0.8, "p90": 1.5})
    expert = [figures.compute.expert[0].model_copy(update={"seconds": noisy})]
    figures = figures.model_copy(
        update={"compute": figures.compute.model_copy(update={"expert": expert})}
    )
    ends = [
        simulate(TOY, Policy(), figures, 1000.0, noise_seed=seed).steps[-1].end
        for seed in (1, 1, 2)
    ]
    assert ends[0] == ends[1] != ends[2]
    assert ends[0] != simulate(TOY, Policy(), figures, 1000.0).steps[-1].end
    assert simulate(TOY, Policy(), figures, 1000.0, noise_seed=1) == simulate(
        TOY, Policy(), figures, 1000.0, noise_seed=1, engine="simpy"
    )


def test_noise_draws_hand_overs_once_for_a_simulation() -> None:
    # One expert misses in each layer, and whoever brings it stands idle before.
    trace = trace_of([[[step % 2, step % 2 + 2]] for step in range(6)])
    figures, one = calibration(codec_figures(layers=1), layers=1), Policy(slots=4)
    spread = figure(0.25).model_copy(update={"p10": 0.125, "p90": 1.0})
    handover = figures.handover.model_copy(update={"start_s": spread})
    figures = figures.model_copy(update={"handover": handover})

    def waited(seed: int | None) -> list[float]:
        record = simulate(trace, one, figures, 1000.0, noise_seed=seed)
        return [step.loads[0].spans[0].start - step.loads[0].submitted for step in record.steps[:2]]

    assert waited(None) == [0.25, 0.25]
    drawn = np.array([waited(seed) for seed in range(400)])
    assert drawn[:, 0] == pytest.approx(drawn[:, 1])
    assert np.median(drawn) == pytest.approx(0.25, rel=0.1)
    assert np.quantile(drawn, [0.1, 0.9]) == pytest.approx([0.125, 1.0], rel=0.25)


def test_what_was_not_measured_is_estimated() -> None:
    figures = calibration()
    link = figures.link.model_copy(update={"label": "ESTIMATED"})
    assert simulate(TOY, Policy(), figures).label == "SIMULATED"
    assert simulate(TOY, Policy(), figures.model_copy(update={"link": link})).label == "ESTIMATED"
