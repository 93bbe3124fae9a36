"""Makers of tables of bounds: the ways in which the literature spreads bounds over a model."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.evictions import Key

ZONES = 3


def uniform(bound: Bound) -> Bounds:
    """The same bound for every matrix."""
    return Bounds(default=bound)


def zones(
    layers: int, shallow: Bound, middle: Bound, deep: Bound, overlapping: bool = False
) -> Bounds:
    """A bound for each third of the layers, in order.

    Where the layers cannot be cut into equal thirds, the earlier ones have a layer more. The groups
    may overlap as in studies of groups of layers: shallow is then the first half, middle the middle
    half, deep the last half; a layer is in a group if its own middle is in it, borders included.
    Where groups overlap, the tighter bound holds.

    Args:
        layers: MoE layers of the model, 3 or more.
        shallow: of the first layers.
        middle: of those between.
        deep: of the last ones.
        overlapping: whether the groups overlap.

    Raises:
        InputError: fewer than 3 layers, or bounds of several kinds for groups that overlap, of
            which no one can say which is tighter.
    """
    if layers < ZONES:
        raise InputError(f"zones are of {ZONES} layers or more, not of {layers}")
    groups = (shallow, middle, deep)
    if not overlapping:
        return by_layer([groups[ZONES * layer // layers] for layer in range(layers)])
    if len({bound.kind for bound in groups}) > 1:
        said = ", ".join(map(str, groups))
        raise InputError(f"which of {said} is tighter depends on the weights; give one kind")
    bounds = []
    for layer in range(layers):
        at = 2 * (2 * layer + 1)  # the middle of the layer, in quarters of 1 / layers
        inside = (at <= 2 * layers, layers <= at <= 3 * layers, at >= 2 * layers)
        held = [bound for bound, holds in zip(groups, inside, strict=True) if holds]
        bounds.append(min(held, key=lambda bound: bound.value))
    return by_layer(bounds)


def by_layer(bounds: Sequence[Bound]) -> Bounds:
    """A bound for each layer. A layer beyond the list would have the bound of the first.

    Args:
        bounds: [layers], one or more.

    Raises:
        InputError: no bound.
    """
    if not bounds:
        raise InputError("bounds by layer are one for each layer, and there is none")
    groups: dict[Bound, list[int]] = {}
    for layer, bound in enumerate(bounds):
        groups.setdefault(bound, []).append(layer)
    if len(groups) == 1:
        return uniform(bounds[0])
    rules = tuple(Rule(bound=bound, layers=tuple(those)) for bound, those in groups.items())
    return Bounds(default=bounds[0], rules=rules)


def by_hotness(
    popularity: Mapping[Key, int], share: float, hot: Bound, cold: Bound, layers: int, experts: int
) -> Bounds:
    """One bound for the popular experts of each layer, another for the others.

    Args:
        popularity: lookups that asked for each (layer, expert), as of
            `offsim.policy.lookup.popularity_of`; who is not in it was never asked for.
        share: of the experts of each layer that are hot, 0..1, to the nearest number of experts,
            halves up. Of equally popular experts the lower id comes first.
        hot: bound of the popular experts.
        cold: bound of the others.
        layers: MoE layers.
        experts: of each.

    Raises:
        InputError: a share that is none.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of hot experts is from 0 to 1, not {share:g}")
    count = math.floor(share * experts + 0.5)
    groups: dict[tuple[int, ...], list[int]] = {}
    for layer in range(layers):
        ranked = sorted(range(experts), key=lambda e: (-popularity.get((layer, e), 0), e))
        groups.setdefault(tuple(sorted(ranked[:count])), []).append(layer)
    rules = tuple(
        Rule(bound=hot, layers=tuple(those), experts=chosen)
        for chosen, those in groups.items()
        if chosen
    )
    return Bounds(default=cold, rules=rules)


def by_matrix(gate: Bound, up: Bound, down: Bound) -> Bounds:
    """A bound for each of the three matrices of every expert."""
    return Bounds(
        default=gate,
        rules=(Rule(bound=up, matrices=("up",)), Rule(bound=down, matrices=("down",))),
    )


KINDS: Mapping[str, Callable[..., Bounds]] = MappingProxyType(
    {
        "uniform": uniform,
        "zones": zones,
        "layers": by_layer,
        "hotness": by_hotness,
        "matrix": by_matrix,
    }
)
"""The makers by name."""


def kind_named(name: str) -> Callable[..., Bounds]:
    """A maker.

    Raises:
        InputError: none has this name.
    """
    if name not in KINDS:
        raise InputError(f"no bounds are made by {name!r}; there are {', '.join(KINDS)}")
    return KINDS[name]
