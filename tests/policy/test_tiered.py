"""A tier of decoded experts beside a tier of blobs, from the log of their decisions alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.policy.cache import Decision
from offsim.policy.decider import decider_for
from offsim.policy.evictions import Key
from offsim.policy.policy import Policy
from offsim.policy.registry import cache_of
from offsim.policy.tiered import TieredCache
from offsim.policy.tiers import Sizes
from offsim.trace import Trace

from .test_decider import LAYERS, POLICIES, TRACES, decided, size

SIZES = Sizes(size, 7)
SHARES = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])


def tiered(slots: int, blobs: int) -> TieredCache:
    """One layer; so many decoded experts and so many blobs."""
    return TieredCache(cache_of("lru", [slots], lambda _: 1), cache_of("lru", [blobs], lambda _: 1))


def test_what_is_there_as_a_blob_alone_is_decoded_and_comes_into_the_other_tier() -> None:
    cache = tiered(1, 2)
    found = [cache.lookup(0, [expert]) for expert in (0, 1, 0, 0, 2)]
    assert found == [
        Decision(0, (), (0,), ((),), decoded=Decision(0, (), (0,), ((),))),
        Decision(0, (), (1,), ((),), decoded=Decision(0, (), (1,), (((0, 0),),))),
        Decision(0, (0,), (), decoded=Decision(0, (), (0,), (((0, 1),),))),
        Decision(0, (0,), (), decoded=Decision(0, (0,), ())),
        Decision(0, (), (2,), (((0, 1),),), decoded=Decision(0, (), (2,), (((0, 0),),))),
    ]


def test_what_is_there_decoded_alone_does_not_come_back_as_a_blob() -> None:
    cache = tiered(2, 1)
    found = [cache.lookup(0, [expert]) for expert in (0, 1, 0, 1)]
    assert found[1].evicted == (((0, 0),),)
    assert found[2] == Decision(0, (0,), (), decoded=Decision(0, (0,), ()))
    assert found[3] == Decision(0, (1,), (), decoded=Decision(0, (1,), ()))


def test_no_tier_gives_up_an_expert_of_the_lookup() -> None:
    cache = tiered(1, 2)
    cache.lookup(0, [0, 1])
    # 0 is decoded and asked for, so that 2 finds no room beside it; of the blobs 1 leaves.
    decision = cache.lookup(0, [2, 0])
    assert decision.decoded == Decision(0, (0,), (2,), ((),), (2,))
    assert decision == replace(Decision(0, (0,), (2,), (((0, 1),),)), decoded=decision.decoded)


def test_the_host_computes_what_neither_tier_has() -> None:
    cache = tiered(1, 2)
    cache.lookup(0, [0])
    cache.lookup(0, [1])
    decision = cache.lookup(0, [0, 1, 2], outside={0, 1, 2})
    assert (decision.hits, decision.misses, decision.on_host) == ((0, 1), (2,), (2,))
    assert decision.decoded is not None
    assert (decision.decoded.hits, decision.decoded.on_host) == ((1,), (2,))
    assert decision.staged == ()


def test_a_prefetch_comes_into_the_tier_of_blobs() -> None:
    cache = tiered(1, 2)
    cache.lookup(0, [0])
    cache.lookup(0, [1])
    fetched, displaced, left = cache.fetch([(0, 1), (0, 0), (0, 2)], lambda _: 3, 5)
    assert (fetched, displaced, left) == ([(0, 2)], [((0, 1),)], 2)
    decision = cache.lookup(0, [1, 2])
    assert (decision.hits, decision.misses) == ((1, 2), ())
    assert decision.decoded == Decision(0, (1,), (2,), ((),), (2,))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(trace=TRACES, profile=TRACES, policy=POLICIES, share=SHARES)
def test_a_log_accounts_for_both_tiers(
    trace: Trace, profile: Trace, policy: Policy, share: float
) -> None:
    policy = policy.model_copy(update={"keep": "both", "decoded_share": share})
    pools = LAYERS if policy.scope == "layer" else 1
    slots = policy.slots * LAYERS // pools
    whole = policy.decoded_slots(slots)
    decoded: set[Key] = set()
    blobs: set[Key] = set()
    pending: set[Key] = set()

    def fits() -> None:
        for pool in range(pools):
            own = [key for key in decoded if pools == 1 or key[0] == pool]
            held = [size(key) for key in blobs if pools == 1 or key[0] == pool]
            assert len(own) <= whole <= share * slots
            assert sum(held) <= (slots - whole) * 7

    for lookup, decision in decided(decider_for(policy, trace, size, profile, SIZES), trace):
        layer, wanted = lookup.layer, lookup.wanted()
        tier = decision.decoded
        assert tier is not None
        pending = {key for key in pending if key[0] != layer}
        hits = [key for key in wanted if key in decoded or key in blobs]
        assert [(layer, expert) for expert in decision.hits] == hits
        assert [(layer, e) for e in decision.misses] == [k for k in wanted if k not in hits]
        assert [(layer, e) for e in tier.hits] == [k for k in wanted if k in decoded]
        assert [(layer, e) for e in tier.misses] == [k for k in wanted if k not in decoded]
        for held, part in ((decoded, tier), (blobs, decision)):
            for expert, left in zip(part.misses, part.evicted, strict=True):
                assert set(left) <= held - set(wanted)
                held.difference_update(left)
                if expert not in part.staged:
                    held.add((layer, expert))
            fits()
        gone = {key for left in (*decision.evicted, *decision.displaced) for key in left}
        assert not gone & pending
        for key, left in zip(decision.fetched, decision.displaced, strict=True):
            assert key not in decoded | blobs
            blobs.difference_update(left)
            blobs.add(key)
            fits()
        pending |= set(decision.fetched)
        assert not tier.fetched


@settings(derandomize=True, max_examples=150, deadline=None)
@given(trace=TRACES, profile=TRACES, policy=POLICIES)
def test_blobs_alone_are_a_cache_of_blobs_and_decoded_ones_alone_of_slots(
    trace: Trace, profile: Trace, policy: Policy
) -> None:
    def log(**changes: object) -> list[Decision]:
        changed = policy.model_copy(update=changes)
        decider = decider_for(changed, trace, size, profile, SIZES)
        return [decision for _, decision in decided(decider, trace)]

    both = log(keep="both", decoded_share=0.0)
    assert [replace(one, decoded=None) for one in both] == log(keep="compressed")
    both = log(keep="both", decoded_share=1.0)
    assert not any(one.fetched for one in both), "there is no room for a blob"
    assert [one.decoded for one in both] == log(prefetch="none")
    assert all(one.decoded is not None and one.hits == one.decoded.hits for one in both)


def test_a_share_is_of_whole_experts() -> None:
    policy = Policy(keep="both", decoded_share=0.29)
    assert policy.decoded_slots(100) == 29, "although 0.29 * 100 is below 29"
    assert [policy.decoded_slots(slots) for slots in (0, 3, 4, 7)] == [0, 0, 1, 2]
    assert [Policy(keep=keep).decoded_slots(5) for keep in ("decoded", "compressed", "both")] == [
        5,
        0,
        2,
    ]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="decoded_share"):
        Policy(keep="both", decoded_share=share)


@pytest.mark.parametrize("keep", ["decoded", "compressed"])
def test_a_share_of_one_tier_is_refused(keep: str) -> None:
    with pytest.raises(ValueError, match=f"kept in both tiers, not {keep}"):
        Policy(keep=keep, decoded_share=0.25)
