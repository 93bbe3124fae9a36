import pytest

from offsim.errors import InputError
from offsim.policy.evictions import Eviction
from offsim.policy.policy import Policy
from offsim.policy.registry import EVICTIONS, cache_of, eviction_named
from offsim.policy.replay import cache_for
from tests.builders import trace_of

TRACE = trace_of([[[0, 1]] * 3, [[2, 1]] * 3, [[0, 3]] * 3])


def test_names() -> None:
    assert next(iter(EVICTIONS)) == "lru"
    for name, eviction in EVICTIONS.items():
        assert eviction.name == name
        assert issubclass(eviction, Eviction)
    assert [name for name, eviction in EVICTIONS.items() if eviction.oracle] == ["belady"]


@pytest.mark.parametrize("name", EVICTIONS)
def test_each_call_gives_a_fresh_cache(name: str) -> None:
    policy = Policy(cache=name, slots=2)
    cache_for(policy, TRACE, TRACE).lookup(0, [0, 1])
    assert cache_for(policy, TRACE, TRACE).lookup(0, [0, 1]).misses == (0, 1)


@pytest.mark.parametrize("name", EVICTIONS)
def test_layers_have_slots_of_their_own(name: str) -> None:
    cache = cache_for(Policy(cache=name, slots=1), TRACE, TRACE)
    for layer in range(3):
        cache.lookup(layer, [0])
        assert cache.lookup(layer, [0]).hits == (0,)
    cache.lookup(0, [1])
    assert cache.lookup(0, [0]).misses == (0,) or name == "pinned"


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="'arc'; there are lru, lfu"):
        eviction_named("arc")


def test_what_a_policy_must_know_is_asked_for() -> None:
    with pytest.raises(InputError, match="belady looks into the future: it needs a trace"):
        cache_of("belady", [1], lambda _: 1)
    with pytest.raises(InputError, match="pinned needs a profile"):
        cache_of("pinned", [1], lambda _: 1)
