import pytest

from offsim.errors import InputError
from offsim.policy.cache import ExpertCache
from offsim.policy.registry import CACHES, cache_named


def test_names() -> None:
    assert "lru" in CACHES
    for name, cache in CACHES.items():
        assert cache.name == name
        assert issubclass(cache, ExpertCache)


@pytest.mark.parametrize("name", CACHES)
def test_each_call_gives_a_fresh_cache(name: str) -> None:
    first = cache_named(name, layers=1, slots=2)
    first.lookup(0, [0, 1])
    assert cache_named(name, layers=1, slots=2).lookup(0, [0, 1]).misses == (0, 1)


@pytest.mark.parametrize("name", CACHES)
def test_layers_and_slots_are_taken_in_this_order(name: str) -> None:
    cache = cache_named(name, 3, 1)
    for layer in range(3):
        cache.lookup(layer, [layer])
        assert cache.lookup(layer, [layer]).hits == (layer,)
    cache.lookup(0, [1])
    assert cache.lookup(0, [0]).misses == (0,)


def test_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="'arc'; there are lru"):
        cache_named("arc", layers=1, slots=1)
