"""What is kept between tables of bounds changes no metric, to the last bit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.calibration.schema import Calibration
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.policy import Policy
from offsim.simulate import predict
from offsim.simulate.predictor import Predictor
from offsim.trace import Trace
from tests.builders import TOY
from tests.simulate.bounded import LADDER, machine
from tests.simulate.fast.test_planning import traces

CACHES = ("lru", "belady", "s3-fifo", "lfu-aging", "random", "weight", "pinned")
PREFETCHERS = ("none", "none", "gate", "last-token", "oracle", "noisy-oracle")
PLACES = (
    {},
    {"prefetch_bytes": 2500},
    {"keep": "compressed"},
    {"keep": "both"},
    {"host_bytes": 6000},
    {"low": {"codec": "cuszp", "bound": 1.0, "below": 0.4}},
)


@st.composite
def tables(draw: st.DrawFn, layers: int, experts: int) -> Bounds:
    def some(size: int) -> st.SearchStrategy[tuple[int, ...] | None]:
        return st.none() | st.lists(st.integers(0, size - 1), min_size=1, max_size=2).map(tuple)

    def bound() -> Bound:
        return Bound(draw(st.sampled_from(LADDER)))

    rules = [
        Rule(
            bound=bound(),
            layers=draw(some(layers)),
            experts=draw(some(experts)),
            matrices=draw(st.sampled_from([None, None, ("gate",), ("up", "down")])),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    return Bounds(default=bound(), rules=tuple(rules))


@st.composite
def asked(draw: st.DrawFn) -> tuple[Trace, Policy, Calibration, list[Bounds]]:
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(3, 5))
    place = draw(st.sampled_from(PLACES))
    prefetch = draw(st.sampled_from(PREFETCHERS))
    fields: dict[str, object] = {
        "codec": "cuszp",
        "bound": LADDER[0],
        "cache": draw(st.sampled_from(CACHES)),
        "slots": draw(st.integers(0, experts)),
        "scope": draw(st.sampled_from(["layer", "global"])),
        "prefetch": prefetch,
        "recall": 0.7 if prefetch == "noisy-oracle" else 1.0,
        "transfer": {"chunk_bytes": draw(st.sampled_from([None, 300]))},
        **place,
    }
    figures = machine(layers, experts, draw(st.integers(0, 3)), draw(st.sampled_from([None, 0.01])))
    made = draw(st.lists(tables(layers, experts), min_size=2, max_size=4))
    return draw(traces(layers, experts)), Policy.model_validate(fields), figures, made


@settings(max_examples=200, deadline=None, derandomize=True)
@given(asked())
def test_metrics_are_those_of_single_predictions(
    given_to: tuple[Trace, Policy, Calibration, list[Bounds]],
) -> None:
    trace, policy, figures, made = given_to
    predictor = Predictor(trace, policy, figures, 1000.0, trace)
    for bounds in made:
        alone = policy.model_copy(update={"bound": 0.0, "bounds": bounds})
        slow = predict(trace, alone, figures, 1000.0, trace, engine="simpy")
        assert repr(predictor.predict(bounds)) == repr(slow)  # nan differs from itself


def test_a_trace_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="the trace has 3 layers"):
        Predictor(TOY, Policy(codec="cuszp", bound=0.25), machine(2, 4, 0))
