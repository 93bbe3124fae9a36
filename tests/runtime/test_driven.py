"""A trace drives generated experts for real, and the run decides as its simulation does."""

import threading
from typing import Any, Literal

import numpy as np
import pytest

from offsim.calibration.schema import Calibration
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.policy.registry import EVICTIONS
from offsim.policy.transfer import Transfer
from offsim.record import metrics_of
from offsim.runtime import ExpertStore, Run, run_driven
from offsim.runtime.driven import check_memory, most_at_once, usual_memory
from offsim.simulate import simulate
from offsim.testbed.generated import GeneratedModel, generated_model
from offsim.trace import Trace
from offsim.trace.cut import cut
from offsim.trace.format import TraceInfo
from tests.builders import calibration, codec_figures, foreseen, trace_of

LAYERS, EXPERTS, TOP_K = 3, 6, 2
FAST = 1e9


def routing(requests: int = 2, prompt: int = 3, decodes: int = 6) -> Trace:
    """Requests that take experts at random, foreseen two layers ahead and partly wrong."""
    rng = np.random.default_rng(3)
    length = prompt + decodes
    tokens = requests * length
    order = rng.random((tokens, LAYERS, EXPERTS)).argsort(-1)[:, :, :TOP_K]
    weights = rng.random(order.shape).astype(np.float16)
    phase = (np.arange(length) >= prompt).astype(np.uint8)
    trace = foreseen(
        Trace(
            TraceInfo(model="made", experts_per_layer=EXPERTS, source="tests"),
            experts=order.astype(np.uint16),
            weights=weights,
            request=np.repeat(np.arange(requests, dtype=np.int32) * 2, length),
            position=np.tile(np.arange(length, dtype=np.int32), requests),
            phase=np.tile(phase, requests),
        ),
        2,
    )
    assert trace.lookahead is not None
    trace.lookahead[::3, 0, 0] = (trace.lookahead[::3, 0, 0] + 1) % EXPERTS
    return trace


TRACE = routing()
MODEL = generated_model((LAYERS, EXPERTS, 32, 16), distinct=5, sigma=0.1)


@pytest.fixture(scope="module")
def raw() -> ExpertStore:
    return ExpertStore.holding(MODEL, codec_named("raw"), 0.0)


def figures_of(store: ExpertStore) -> Calibration:
    """A calibration that has the bytes of the store."""
    made = codec_figures(str(store.codec), store.bound, layers=LAYERS, experts=EXPERTS)
    made = made.model_copy(update={"blob_bytes": store.blob_bytes})
    whole = calibration(made, layers=LAYERS, experts=EXPERTS)
    facts = {"hidden": store.shape.hidden, "width": store.shape.width}
    return whole.model_copy(update={"model": whole.model.model_copy(update=facts)})


def check(store: ExpertStore, policy: Policy, trace: Trace = TRACE, pace: float = FAST) -> Run:
    """Run and simulate it, and hold both against each other."""
    run = run_driven(MODEL, store, policy, trace, pace, profile=trace)
    simulated = simulate(trace, policy, figures_of(store), pace, trace)
    assert run.tokens == []
    assert run.record.label == "MEASURED"
    assert run.record.decisions() == simulated.decisions()
    assert [(s.request, s.phase) for s in run.record.steps] == [
        (s.request, s.phase) for s in simulated.steps
    ]
    measured, predicted = metrics_of(run.record), metrics_of(simulated)
    for name in ("lookups", "hit_rate", "link_bytes", "prefetch_bytes", "wasted_bytes"):
        if name != "hit_rate" or policy.prefetch == "none":  # what came late is a matter of time
            assert getattr(measured, name) == getattr(predicted, name), name
    assert offsim_threads() == []
    return run


def offsim_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("offsim ")]


@pytest.mark.parametrize("slots", [0, 2, EXPERTS])
@pytest.mark.parametrize(("codec", "bound"), [("raw", 0.0), ("cuszp", 2.0**-6), ("sz3", 2.0**-6)])
def test_run_and_simulation_take_the_same_decisions(codec: str, bound: float, slots: int) -> None:
    store = ExpertStore.holding(MODEL, codec_named(codec), bound)
    assert store.largest_error <= bound
    run = check(store, Policy(codec=codec, bound=bound, slots=slots))
    assert [len(step.layers) for step in run.times] == [LAYERS] * len(run.record.steps)


LIVE = [name for name, eviction in EVICTIONS.items() if not eviction.oracle]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("cache", LIVE)
def test_every_cache_decides_the_same_in_both(
    raw: ExpertStore, cache: str, scope: Literal["layer", "global"]
) -> None:
    check(raw, Policy(cache=cache, slots=2, scope=scope, seed=7))


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("prefetch", ["gate", "last-token", "transition", "popularity"])
def test_run_and_simulation_prefetch_the_same(
    raw: ExpertStore, prefetch: str, distance: int
) -> None:
    policy = Policy(slots=3, prefetch=prefetch, distance=distance)
    run = check(raw, policy)
    assert any(decision.fetched for decision in run.record.decisions())
    check(raw, policy.model_copy(update={"prefetch_bytes": raw.shape.bytes}))


def test_gates_are_those_of_the_trace(raw: ExpertStore) -> None:
    foretold = check(raw, Policy(slots=3, prefetch="gate")).record.decisions()
    assert TRACE.lookahead is not None
    first = foretold[0]
    assert {key[0] for key in first.fetched} == {1}
    assert {key[1] for key in first.fetched} <= set(TRACE.lookahead[:3, 0, 0].ravel().tolist())


def test_a_slow_link_in_chunks_changes_no_decision(raw: ExpertStore) -> None:
    transfer = Transfer(chunk_bytes=1000, channels=2)
    policy = Policy(slots=2, prefetch="gate", transfer=transfer)
    check(raw, policy, cut(TRACE, tokens=3), raw.shape.bytes / 0.002)


def test_a_trace_that_only_decodes_runs(raw: ExpertStore) -> None:
    trace = cut(routing(requests=1, prompt=0), tokens=4)
    assert most_at_once(trace) == TOP_K
    assert len(check(raw, Policy(slots=2), trace).times) == 4


def test_fewer_layers_run(raw: ExpertStore) -> None:
    part = raw.first(2)
    assert (part.shape.layers, len(part.blobs)) == (2, 2)
    assert raw.first(9).shape == raw.shape
    run = run_driven(MODEL, part, Policy(slots=2), cut(TRACE, layers=2))
    assert {decision.layer for decision in run.record.decisions()} == {0, 1}


def test_experts_that_are_alike_share_a_blob(raw: ExpertStore) -> None:
    blobs = {id(blob) for row in raw.blobs for blob in row}
    assert len(blobs) == len(
        {MODEL.identity(la, e) for la in range(LAYERS) for e in range(EXPERTS)}
    )
    assert len(blobs) <= 5
    assert raw.nbytes == LAYERS * EXPERTS * raw.shape.bytes


def other_trace() -> Trace:
    return trace_of([[[0, 1]] * LAYERS] * 2, EXPERTS + 1)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"trace": other_trace()}, "the trace has 3 layers of 7 experts, the experts"),
        ({"trace": cut(TRACE, layers=2)}, "the trace has 2 layers of 6 experts, the experts"),
        ({"model": generated_model((LAYERS, EXPERTS, 16, 16))}, "holds other experts than"),
        ({"policy": Policy(cache="belady")}, "belady looks into the future"),
        ({"policy": Policy(prefetch="oracle")}, "oracle looks into the future"),
        ({"policy": Policy(prefetch="popularity")}, "popularity needs a profile"),
        ({"policy": Policy(keep="compressed")}, "codec raw does not decode on the device"),
        ({"policy": Policy(prefetch="gate", distance=3)}, "the gates choose 2 ahead; record"),
        ({"policy": Policy(codec="sz3", bound=0.5)}, "stored under raw and .* asks for sz3 0.5"),
        (
            {"policy": Policy(transfer=Transfer(chunk_bytes=9, pipelined=True))},
            "pipelined transfers can only be simulated",
        ),
    ],
)
def test_what_cannot_run_is_refused(raw: ExpertStore, changed: dict[str, Any], says: str) -> None:
    model: GeneratedModel = changed.get("model", MODEL)
    policy, trace = changed.get("policy", Policy()), changed.get("trace", TRACE)
    with pytest.raises(InputError, match=says):
        run_driven(model, raw, policy, trace)
    assert offsim_threads() == []


def test_what_has_no_room_is_refused() -> None:
    shape = MODEL.shape
    places = LAYERS * 2 + 4
    need = places * shape.values * 4 + 5 * shape.bytes + MODEL.dense_copies * MODEL.dense_bytes
    check_memory(MODEL, shape, LAYERS * 2, 4, 1, need)
    with pytest.raises(InputError, match=r"would take up to .* \(slots .*, blobs .*, dense parts"):
        check_memory(MODEL, shape, LAYERS * 2, 4, 1, need - 1)
    with pytest.raises(InputError, match="more than the"):
        check_memory(MODEL, shape, LAYERS * 2, 4, 2, need)
    assert usual_memory() > 1 << 28
