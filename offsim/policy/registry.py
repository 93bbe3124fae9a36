"""Caches by name. A new one adds its line here and nowhere else."""

from offsim.errors import InputError
from offsim.policy.cache import ExpertCache
from offsim.policy.lru import LruPerLayer

CACHES = {cache.name: cache for cache in (LruPerLayer,)}


def cache_named(name: str, layers: int, slots: int) -> ExpertCache:
    """A fresh cache of this name.

    Raises:
        InputError: no cache has this name.
    """
    if name not in CACHES:
        raise InputError(f"no cache is called {name!r}; there are {', '.join(CACHES)}")
    return CACHES[name](layers, slots)
