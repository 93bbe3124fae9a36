"""Eviction policies by name, and caches made of them. A new policy adds its line here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from offsim.errors import InputError
from offsim.policy.evictions import Eviction, Key, PoolFacts
from offsim.policy.evictions.belady import Belady
from offsim.policy.evictions.drawn import Drawn
from offsim.policy.evictions.fifo import Fifo
from offsim.policy.evictions.lfu import Lfu
from offsim.policy.evictions.lfu_aging import LfuAging
from offsim.policy.evictions.lru import Lru
from offsim.policy.evictions.pinned import Pinned
from offsim.policy.evictions.s3fifo import S3Fifo
from offsim.policy.evictions.weighted import Weighted
from offsim.policy.pool import PooledCache

Scope = Literal["layer", "global"]
EVICTIONS: dict[str, type[Eviction]] = {
    policy.name: policy
    for policy in (Lru, Lfu, LfuAging, Fifo, Drawn, S3Fifo, Weighted, Pinned, Belady)
}


def eviction_named(name: str) -> type[Eviction]:
    """The eviction policy of this name.

    Raises:
        InputError: no policy has this name.
    """
    if name not in EVICTIONS:
        raise InputError(f"no cache is called {name!r}; there are {', '.join(EVICTIONS)}")
    return EVICTIONS[name]


def cache_of(
    name: str,
    capacities: Sequence[int],
    nbytes: Callable[[Key], int],
    seed: int = 0,
    popularity: Mapping[Key, float] | None = None,
    future: Sequence[Sequence[Key]] | None = None,
) -> PooledCache:
    """A fresh cache.

    Args:
        name: of the eviction policy.
        capacities: bytes of each pool: one for all layers, or one a layer.
        nbytes: bytes that an expert takes in the cache.
        seed: of policies that draw.
        popularity: for policies that pin: how often each expert was asked for in a profile.
        future: for oracles: the distinct experts of every lookup to come, in order.

    Raises:
        InputError: no policy has this name, or it needs a profile or the future.
    """
    kind = eviction_named(name)
    if kind.oracle and future is None:
        raise InputError(f"cache {name} looks into the future: it needs a trace, not a live run")
    if kind is Pinned and popularity is None:
        raise InputError(f"cache {name} needs a profile: a trace whose popular experts are pinned")
    pools = []
    for place, capacity in enumerate(capacities):
        own = _of_pool(place, len(capacities))
        known = {key: count for key, count in (popularity or {}).items() if own(key)}
        coming = [keys for keys in future or () if own(keys[0])]
        pools.append(kind(PoolFacts(capacity, seed + place, known, coming)))
    return PooledCache(pools, nbytes)


def _of_pool(place: int, pools: int) -> Callable[[Key], bool]:
    return lambda key: pools == 1 or key[0] == place
