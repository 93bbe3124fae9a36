"""Prefetchers by name. A new one adds its line here."""

from offsim.errors import InputError
from offsim.policy.prefetchers.base import Prefetcher
from offsim.policy.prefetchers.gate import Gate
from offsim.policy.prefetchers.last_token import LastToken
from offsim.policy.prefetchers.oracle import NoisyOracle, Oracle
from offsim.policy.prefetchers.popularity import Popularity
from offsim.policy.prefetchers.transition import Transition

NONE = "none"
"""How users write that nothing is prefetched."""
PREFETCHERS: dict[str, type[Prefetcher]] = {
    prefetcher.name: prefetcher
    for prefetcher in (Gate, LastToken, Transition, Popularity, Oracle, NoisyOracle)
}


def prefetcher_named(name: str) -> type[Prefetcher] | None:
    """The prefetcher of this name; None for `none`.

    Raises:
        InputError: no prefetcher has this name.
    """
    if name != NONE and name not in PREFETCHERS:
        known = ", ".join((NONE, *PREFETCHERS))
        raise InputError(f"no prefetcher is called {name!r}; there are {known}")
    return PREFETCHERS.get(name)


def lookahead(name: str, distance: int) -> int:
    """How many layers ahead gates have to be asked: the distance, or 0 where none is.

    Args:
        name: of a prefetcher.
        distance: layers that it looks ahead.

    Raises:
        InputError: as for `prefetcher_named`.
    """
    kind = prefetcher_named(name)
    return distance if kind is not None and kind.gated else 0
