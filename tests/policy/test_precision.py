"""Which misses come coarse, and what a coarse resident is good for; from the log alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from offsim.policy.cache import Decision
from offsim.policy.decider import decider_for, live_decider
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup, lookups_of
from offsim.policy.policy import Policy
from offsim.policy.precision import Low, Precisions
from offsim.policy.prefetchers.registry import PREFETCHERS
from offsim.policy.registry import EVICTIONS
from offsim.trace import DECODE, Trace
from tests.builders import trace_of

from .test_decider import EXPERTS, LAYERS, MANY, REACH, TOP_K, TRACES, decided, size

SHARES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75])


@st.composite
def weighed(draw: st.DrawFn) -> Trace:
    """Traces whose weights tie, are nothing, and do not add up to one."""
    trace = draw(TRACES)
    count = trace.weights.size
    weights = np.array(draw(st.lists(SHARES, min_size=count, max_size=count)), np.float16)
    return Trace(trace.info, **{**trace.arrays(), "weights": weights.reshape(trace.weights.shape)})


POLICIES = st.builds(
    Policy,
    cache=st.sampled_from(sorted(EVICTIONS)),
    slots=st.integers(0, EXPERTS),
    scope=st.sampled_from(["layer", "global"]),
    prefetch=st.sampled_from(sorted(PREFETCHERS)),
    distance=st.integers(1, REACH),
    low=st.builds(
        Low, codec=st.just("cuszp"), bound=st.just(0.5), below=st.sampled_from([0.25, 0.4, 0.5, 1])
    ),
)
CASES = given(trace=weighed(), profile=TRACES, policy=POLICIES)


def heaviest(lookup: Lookup) -> dict[int, float]:
    """The largest share of each expert; nan where a token gives nothing."""
    tokens = zip(*[iter(zip(lookup.accesses, lookup.weights, strict=True))] * TOP_K, strict=True)
    found: dict[int, list[float]] = {}
    for token in tokens:
        total = sum(weight for _, weight in token)
        for expert, weight in token:
            found.setdefault(expert, []).append(weight / total if total else math.nan)
    return {expert: float(np.max(shares)) for expert, shares in found.items()}


@MANY
@CASES
def test_the_log_says_in_which_precision_everything_is(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    assert policy.low is not None
    resident: dict[Key, bool] = {}  # and whether it is coarse
    for lookup, decision in decided(decider_for(policy, trace, size, profile), trace):
        layer = lookup.layer
        low = {e for e, share in heaviest(lookup).items() if share < policy.low.below}
        for _, expert in lookup.wanted():
            here, key = resident.get((layer, expert)), (layer, expert)
            assert (expert in decision.hits) == (here is False or (here is True and expert in low))
            if expert in decision.misses:
                (left,) = [
                    left
                    for miss, left in zip(decision.misses, decision.evicted, strict=True)
                    if miss == expert
                ]
                assert (key in left) == (here is True)
                assert here is None or left == (key,)
        assert decision.coarse == tuple(e for e in decision.misses if e in low)
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            for key in left:
                del resident[key]
            if expert not in decision.staged:
                resident[layer, expert] = expert in low
        for key, left in zip(decision.fetched, decision.displaced, strict=True):
            for gone in left:
                del resident[gone]
            assert key not in resident
            resident[key] = False


def unnoticed(decision: Decision) -> Decision:
    """What the cache decided, to which a coarse resident is a hit."""
    again = {
        miss
        for miss, left in zip(decision.misses, decision.evicted, strict=True)
        if (decision.layer, miss) in left
    }
    kept = [at for at, miss in enumerate(decision.misses) if miss not in again]
    return replace(
        decision,
        hits=tuple(sorted({*decision.hits, *again})),
        misses=tuple(decision.misses[at] for at in kept),
        evicted=tuple(decision.evicted[at] for at in kept),
        coarse=(),
    )


@MANY
@CASES
def test_the_cache_and_the_prefetcher_decide_as_without_it(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    plain = policy.model_copy(update={"low": None})
    expected = decided(decider_for(plain, trace, size, profile), trace)
    found = decided(decider_for(policy, trace, size, profile), trace)
    for (_, one), (lookup, other) in zip(expected, found, strict=True):
        assert replace(one, hits=tuple(sorted(one.hits))) == unnoticed(other)
        order = [expert for _, expert in lookup.wanted()]
        assert list(other.hits) == [e for e in order if e in other.hits]
        assert list(other.misses) == [e for e in order if e in other.misses]


@settings(derandomize=True, max_examples=100, deadline=None)
@CASES
def test_a_live_run_would_decide_the_same(trace: Trace, profile: Trace, policy: Policy) -> None:
    if PREFETCHERS[policy.prefetch].oracle or EVICTIONS[policy.cache].oracle:
        return
    live = live_decider(policy, (LAYERS, EXPERTS, TOP_K), size, profile)
    assert decided(live, trace) == decided(decider_for(policy, trace, size, profile), trace)


@settings(derandomize=True, max_examples=100, deadline=None)
@CASES
def test_where_no_weight_is_low_nothing_changes(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    assert policy.low is not None
    arrays = {**trace.arrays(), "weights": np.full_like(trace.weights, 0.5)}
    even = Trace(trace.info, **arrays)
    policy = policy.model_copy(update={"low": policy.low.model_copy(update={"below": 0.5})})
    plain = policy.model_copy(update={"low": None})
    logs = [decided(decider_for(one, even, size, profile), even) for one in (policy, plain)]
    assert logs[0] == logs[1]


def coarse_of(weights: list[float], below: float, top_k: int = 2) -> tuple[int, ...]:
    """What of the first lookup comes coarse; its accesses are 0, 1, 0, 2, 0, 3 and so on."""
    accesses = [at // 2 + 1 if at % 2 else 0 for at in range(len(weights))]
    lookup = Lookup(0, DECODE, accesses, weights)
    misses = tuple(dict.fromkeys(accesses))
    decision = Decision(0, (), misses, ((),) * len(misses))
    return Precisions(below, top_k).decide(lookup, decision).coarse


@pytest.mark.parametrize(
    ("weights", "below", "coarse"),
    [
        ([0.75, 0.25], 0.5, (1,)),
        ([0.75, 0.25], 0.25, ()),  # a tie is not low
        ([0.75, 0.25], 0.2500001, (1,)),
        ([0.375, 0.125], 0.25, ()),  # a share of what the token gives in all
        ([0.5, 0.5], 1.0, (0, 1)),
        ([0.25, 0.75, 0.75, 0.25], 0.5, (2,)),  # 0 is heavy to the second token
        ([0.25, 0.75, 0.125, 0.875], 0.5, (0,)),
        ([0.0, 0.0], 1.0, ()),  # nothing is known of a token that gives nothing
        ([0.0, 1.0], 0.1, (0,)),
        ([0.0, 1.0], 1.0, (0,)),
        ([math.nan, 0.5], 1.0, ()),
        ([math.nan, 0.5, 0.25, 0.75], 1.0, (2,)),
    ],
)
def test_the_weight_of_an_expert(
    weights: list[float], below: float, coarse: tuple[int, ...]
) -> None:
    assert coarse_of(weights, below) == coarse


def test_an_only_expert_is_never_low() -> None:
    lookup = Lookup(0, DECODE, [3], [0.125])
    decision = Decision(0, (), (3,), ((),))
    assert Precisions(1.0, 1).decide(lookup, decision) == decision


def test_a_hand_count() -> None:
    # One layer, one pool of two slots. Below 0.3 is low.
    trace = trace_of([[[0, 1]], [[1, 0]], [[1, 0]], [[1, 2]], [[1, 0]]])
    weights = [[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.25, 0.75], [0.75, 0.25]]
    arrays = {**trace.arrays(), "weights": np.array(weights, np.float16)[:, None]}
    policy = Policy(slots=2, low=Low(codec="cuszp", bound=0.5, below=0.3))
    decider = decider_for(policy, Trace(trace.info, **arrays), size)
    log = [decider.decide(lookup) for lookup in lookups_of(Trace(trace.info, **arrays))]
    assert log == [
        Decision(0, (), (0, 1), ((), ()), coarse=(1,)),
        Decision(0, (1, 0), ()),  # 1 is there coarse, and weighs little
        Decision(0, (0,), (1,), (((0, 1),),)),  # now it weighs more, and comes again
        Decision(0, (1,), (2,), (((0, 0),),)),  # that it came in full stays so
        Decision(0, (1,), (0,), (((0, 2),),), coarse=(0,)),
    ]


def test_what_left_coarse_and_came_back_in_full_is_full() -> None:
    trace = trace_of([[[0, 1]], [[2, 3]], [[1, 2]], [[1, 2]]])
    weights = [[0.25, 0.75], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    arrays = {**trace.arrays(), "weights": np.array(weights, np.float16)[:, None]}
    policy = Policy(slots=2, low=Low(codec="cuszp", bound=0.5, below=0.5))
    decider = decider_for(policy, Trace(trace.info, **arrays), size)
    log = [decider.decide(lookup) for lookup in lookups_of(Trace(trace.info, **arrays))]
    assert [one.coarse for one in log] == [(0,), (), (), ()]
    assert log[3].hits == (1, 2)


def test_what_passes_through_leaves_nothing_behind() -> None:
    trace = trace_of([[[0, 1]], [[0, 1]]])
    arrays = {**trace.arrays(), "weights": np.array([[[0.25, 0.75]]] * 2, np.float16)}
    policy = Policy(slots=0, low=Low(codec="cuszp", bound=0.5, below=0.5))
    decider = decider_for(policy, Trace(trace.info, **arrays), size)
    first, second = (decider.decide(one) for one in lookups_of(Trace(trace.info, **arrays)))
    assert first == second == Decision(0, (), (0, 1), ((), ()), (0, 1), coarse=(0,))


def test_what_the_host_computes_is_not_loaded() -> None:
    lookup = Lookup(0, DECODE, [0, 1], [0.25, 0.75])
    decision = Decision(0, (), (0, 1), ((), ()), on_host=(0,))
    assert Precisions(0.5, 2).decide(lookup, decision) == decision


@pytest.mark.parametrize(
    "fields",
    [
        {"below": 0.0},
        {"below": -0.5},
        {"below": 1.1},
        {"below": float("nan")},
        {"below": 0.5, "bound": -1.0},
        {"below": 0.5, "bound": float("inf")},
        {"below": 0.5, "share": 1},
        {},
    ],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Low(codec="cuszp", **fields)


def test_text() -> None:
    assert str(Low(codec="cuszp", bound=0.5, below=0.25)) == "cuszp 0.5 below a weight of 0.25"
    policy = Policy(slots=2, scope="global", low=Low(codec="rtn-int4", below=0.2))
    assert str(policy) == "raw, rtn-int4 below a weight of 0.2, lru 2, one pool"
    assert len({policy, policy.model_copy(), Policy(slots=2, scope="global")}) == 2
