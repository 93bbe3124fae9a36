"""Compiled decisions and plans equal those of the policy classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import ForesightFigures
from offsim.policy.policy import Policy
from offsim.simulate import predict, simulate
from offsim.simulate.costs import Costs
from offsim.simulate.fast.foresight import foresees
from offsim.simulate.fast.keys import CACHES
from offsim.simulate.fast.planning import covers, fast_planned
from offsim.simulate.plan import Plan
from offsim.simulate.simulation import EngineName, planned
from offsim.trace import DECODE, PREFILL, Trace
from offsim.trace.format import NOWHERE, TraceInfo
from tests.builders import TOY, calibration, codec_figures, figure, sized

PREFETCHERS = (
    "none",
    "gate",
    "last-token",
    "transition",
    "popularity",
    "oracle",
    "noisy-oracle",
)


@st.composite
def traces(draw: st.DrawFn, layers: int, experts: int) -> Trace:
    """Requests of a prompt and single tokens, with what the gates chose two layers ahead."""
    top_k = draw(st.integers(1, min(3, experts)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=3)
    )
    lengths = [(prompt, decode) for prompt, decode in lengths if prompt + decode] or [(2, 1)]
    tokens = sum(map(sum, lengths))
    skew = rng.random(experts) ** draw(st.sampled_from([0, 2])) + 1e-3

    def chosen(*shape: int) -> np.ndarray:
        return (rng.random((*shape, experts)) / skew).argsort(-1)[..., :top_k].astype(np.uint16)

    ahead = chosen(tokens, layers, 2)
    for distance in (1, 2):
        ahead[:, max(0, layers - distance) :, distance - 1] = NOWHERE
    return Trace(
        TraceInfo(model="toy", experts_per_layer=experts, source="made for a test"),
        experts=chosen(tokens, layers),
        weights=np.full((tokens, layers, top_k), 0.5, np.float16),
        request=np.repeat(np.arange(len(lengths)), [p + d for p, d in lengths]).astype(np.int32),
        position=np.concatenate([np.arange(p + d) for p, d in lengths]).astype(np.int32),
        phase=np.concatenate(
            [np.repeat([PREFILL, DECODE], (prompt, decode)) for prompt, decode in lengths]
        ).astype(np.uint8),
        lookahead=ahead,
    )


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[Trace, Policy, Costs]:
    layers, experts = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    trace = draw(traces(layers, experts))
    prefetch = draw(st.sampled_from(PREFETCHERS))
    noisy = prefetch == "noisy-oracle"
    scope = draw(st.sampled_from(["layer", "global"]))
    policy = Policy(
        cache=draw(st.sampled_from(sorted(CACHES))),
        slots=draw(st.integers(0, experts) | st.just(3_000_000_000)),
        extra=draw(st.integers(0, layers)) if scope == "global" else 0,
        scope=scope,
        prefetch=prefetch,
        distance=draw(st.integers(1, 2)),
        prefetch_bytes=draw(st.sampled_from([None, 0, 1500, 5000])),
        precision=0.6 if noisy else 1.0,
        recall=0.7 if noisy else 1.0,
    )
    rng = np.random.default_rng(layers * experts)
    figures = codec_figures(layers=layers, experts=experts)
    sizes = rng.integers(900, 1100, (layers, experts)).tolist()
    machine = calibration(
        figures.model_copy(update={"blob_bytes": sizes}), layers=layers, experts=experts
    )
    foresight = ForesightFigures(prefetch="gate", distance=1, seconds=sized((1, 0.25), (4, 0.5)))
    attention = draw(st.sampled_from([None, figure(0.01)]))
    compute = machine.compute.model_copy(
        update={"foresight": [foresight], "attention_s": attention}
    )
    return trace, policy, Costs(machine.model_copy(update={"compute": compute}), policy, 1000.0)


def resolved(plan: Plan) -> dict[str, object]:
    """A plan with durations in the place of their indices."""
    columns = plan._asdict()
    durations, kinds = columns.pop("durations"), columns.pop("kinds")
    for name in ("head", "before", "run"):
        columns[name] = durations[columns[name]]
    columns["kinds"] = [part[columns.pop("kind")] for part in (kinds.stages,)]
    return {name: np.asarray(value).tolist() for name, value in columns.items()}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(scenarios())
def test_compiled_decisions_are_those_of_the_classes(
    scenario: tuple[Trace, Policy, Costs],
) -> None:
    trace, policy, costs = scenario
    expected, log = planned(trace, policy, costs, trace, None)
    found, fast_log = fast_planned(trace, policy, costs, trace)
    assert list(fast_log) == list(log)
    assert resolved(found) == resolved(expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scenarios())
def test_engines_agree_on_traces_and_with_the_metrics_of_the_record(
    scenario: tuple[Trace, Policy, Costs],
) -> None:
    from offsim.record import metrics_of

    trace, policy, costs = scenario
    given_to = (trace, policy, costs.calibration, 1000.0, trace)
    fast, slow = simulate(*given_to, engine="fast"), simulate(*given_to, engine="simpy")
    assert fast == slow
    metrics = repr(metrics_of(fast))  # nan differs from itself, not in print
    assert repr(predict(*given_to, engine="fast")) == metrics
    assert repr(predict(*given_to, engine="simpy")) == metrics


@pytest.mark.parametrize("engine", ["fast", "simpy"])
def test_each_lookup_takes_the_prefetchers_own_time(engine: EngineName) -> None:
    """Every expert is resident after the first token, so that nothing else is added."""
    figures = calibration()
    foresight = ForesightFigures(prefetch="last-token", distance=1, seconds=sized((1, 0.25)))
    compute = figures.compute.model_copy(update={"foresight": [foresight]})
    figures = figures.model_copy(update={"compute": compute})
    tpot = {
        prefetch: predict(TOY, Policy(slots=4, prefetch=prefetch), figures, 1e9, engine=engine)
        for prefetch in ("none", "last-token", "transition")
    }
    assert tpot["last-token"].itl_p50_s == pytest.approx(tpot["none"].itl_p50_s + 3 * 0.25)
    assert tpot["transition"].itl_p50_s == tpot["none"].itl_p50_s


@pytest.mark.parametrize("engine", ["fast", "simpy"])
def test_each_layer_attends_to_the_earlier_tokens_of_its_request(engine: EngineName) -> None:
    figures = calibration()
    compute = figures.compute.model_copy(update={"attention_s": figure(0.01)})
    figures = figures.model_copy(update={"compute": compute})
    record = simulate(TOY, Policy(slots=4), figures, 1e9, engine=engine)
    spent = [step.end - step.start for step in record.steps[2:]]  # all experts are there by then
    assert np.diff(spent).tolist() == pytest.approx([3 * 0.01] * 2, abs=1e-5)  # and a load


@pytest.mark.parametrize("cache", ["lru", "fifo", "lfu", "belady"])
def test_what_is_covered(cache: str) -> None:
    assert covers(Policy(cache=cache))
    assert not covers(Policy(cache="s3-fifo"))


@pytest.mark.parametrize("prefetch", PREFETCHERS)
def test_what_is_foreseen(prefetch: str) -> None:
    policy = Policy(prefetch=prefetch, distance=3)
    assert foresees(policy, layers=3) == (prefetch != "noisy-oracle")
    beyond = prefetch in {"last-token", "oracle", "noisy-oracle"}
    assert foresees(policy, layers=2) != beyond


def test_decisions_are_made_once_where_nothing_decides_anew() -> None:
    trace = TOY
    costs = {
        codec: Costs(
            calibration(codec_figures(codec, bound)), Policy(codec=codec, bound=bound), 1e3
        )
        for codec, bound in (("raw", 0.0), ("cuszp", 0.5))
    }

    def asked(codec: str, **fields: object) -> Plan:
        policy = Policy(codec=codec, bound=costs[codec].codec.bound, **fields)  # type: ignore[arg-type]
        return fast_planned(trace, policy, costs[codec], None)[0]

    first = asked("raw", slots=2)
    assert asked("cuszp", slots=2).load is first.load
    assert asked("raw", slots=3).load is not first.load
    budget = {"prefetch": "last-token", "prefetch_bytes": 1000}
    assert asked("raw", **budget).load is asked("raw", **budget).load
