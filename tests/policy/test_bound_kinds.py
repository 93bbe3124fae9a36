from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bound_kinds import (
    KINDS,
    by_hotness,
    by_layer,
    by_matrix,
    kind_named,
    uniform,
    zones,
)
from offsim.policy.bounds import Bounds, Form, bounds_of
from offsim.policy.lookup import popularity_of
from tests.builders import TOY

A, B, C = Bound(0.01), Bound(0.02), Bound(0.03)


def of_layers(table: Bounds, layers: int) -> list[Bound]:
    """The bound of each layer, which must be one."""
    rows = [
        {bound for expert in range(3) for bound in bounds_of(table.of(la, expert))}
        for la in range(layers)
    ]
    return [bound for (bound,) in rows if bound is not None]


def test_uniform() -> None:
    assert uniform(A).of(7, 9) == (Form(A),) * 3
    assert uniform(A).rules == ()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(3, "ABC"), (4, "AABC"), (5, "AABBC"), (6, "AABBCC"), (9, "AAABBBCCC")],
)
def test_thirds_by_hand(layers: int, expected: str) -> None:
    names = {A: "A", B: "B", C: "C"}
    assert "".join(names[b] for b in of_layers(zones(layers, A, B, C), layers)) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        # 8 layers: shallow 0-3, middle 2-5, deep 4-7; the tighter one where two hold.
        ((A, B, C), "AAAABBCC"),
        ((C, B, A), "CCBBAAAA"),
        ((B, A, C), "BBAAAACC"),
        ((A, C, B), "AAAABBBB"),
    ],
)
def test_the_tighter_bound_holds_where_groups_overlap(
    order: tuple[Bound, Bound, Bound], expected: str
) -> None:
    names = {A: "A", B: "B", C: "C"}
    table = zones(8, *order, overlapping=True)
    assert "".join(names[b] for b in of_layers(table, 8)) == expected


@settings(derandomize=True, deadline=None)
@given(
    st.integers(3, 40),
    st.permutations([A, B, C]),
    st.booleans(),
    st.permutations([A, A, B]).map(list),
)
def test_zones_cover_every_layer(
    layers: int, order: list[Bound], overlapping: bool, equal: list[Bound]
) -> None:
    found = of_layers(zones(layers, *order, overlapping=overlapping), layers)
    if overlapping:
        for layer, bound in enumerate(found):
            middle = (layer + 0.5) / layers
            held = [middle <= 0.5, 0.25 <= middle <= 0.75, middle >= 0.5]
            bounds = [b for b, holds in zip(order, held, strict=True) if holds]
            assert bound == min(bounds, key=lambda b: b.value)
    else:
        sizes = [found.count(bound) for bound in order]
        assert sum(sizes) == layers
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] - sizes[2] <= 1
        assert found == [b for b, size in zip(order, sizes, strict=True) for _ in range(size)]
    same = of_layers(zones(layers, *equal, overlapping=overlapping), layers)
    assert set(same) <= {A, B}


def test_zones_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="3 layers or more, not of 2"):
        zones(2, A, B, C)
    with pytest.raises(InputError, match=r"which of 0.01, sigma:0.5, 0.03 is tighter"):
        zones(4, A, Bound(0.5, "sigma"), C, overlapping=True)
    assert of_layers(zones(4, A, Bound(0.5, "sigma"), C), 4)[2].kind == "sigma"


@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=12))
@settings(derandomize=True, deadline=None)
def test_each_layer_has_its_own(bounds: list[Bound]) -> None:
    table = by_layer(bounds)
    assert of_layers(table, len(bounds)) == bounds
    assert len(table.rules) == (0 if len(set(bounds)) == 1 else len(set(bounds)))


def test_no_layer_is_refused() -> None:
    with pytest.raises(InputError, match="there is none"):
        by_layer([])


def test_the_popular_experts_are_hot() -> None:
    # TOY asks layer 1 for 2 and 3 twice, and for 0 and 1 three times.
    table = by_hotness(popularity_of(TOY), 0.5, A, B, 3, 4)
    assert [table.of(1, expert)[0].bound for expert in range(4)] == [A, A, B, B]


@settings(derandomize=True, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.floats(0, 1))
def test_hot_is_who_is_popular_and_ties_go_to_lower_ids(
    data: st.DataObject, layers: int, experts: int, share: float
) -> None:
    places = [(layer, expert) for layer in range(layers) for expert in range(experts)]
    counts = {place: data.draw(st.integers(0, 3)) for place in places}
    known = Counter({place: count for place, count in counts.items() if count})
    table = by_hotness(known, share, A, B, layers, experts)
    for layer in range(layers):
        bounds = [tuple(bounds_of(table.of(layer, expert))) for expert in range(experts)]
        hot = [expert for expert in range(experts) if bounds[expert] == (A, A, A)]
        assert all(bound in ((A, A, A), (B, B, B)) for bound in bounds)
        assert len(hot) == int(share * experts + 0.5)
        ranked = sorted(range(experts), key=lambda e: (-counts[layer, e], e))
        assert sorted(ranked[: len(hot)]) == hot


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(InputError, match="share of hot experts is from 0 to 1"):
        by_hotness({}, share, A, B, 1, 1)


def test_by_matrix() -> None:
    assert bounds_of(by_matrix(A, B, C).of(5, 2)) == [A, B, C]


@pytest.mark.parametrize(
    "table",
    [
        uniform(A),
        zones(5, A, B, C),
        by_layer([A, B, A, C, B]),
        by_hotness({(1, 2): 3}, 0.4, A, B, 5, 4),
        by_matrix(A, B, C),
    ],
    ids=["uniform", "zones", "layers", "hotness", "matrix"],
)
def test_the_table_of_all_places_is_that_of_each(table: Bounds) -> None:
    bounds, at = table.table(5, 4)
    assert at.shape == (5, 4, 3)
    assert set(np.unique(at).tolist()) == set(range(len(bounds)))
    assert len(set(bounds)) == len(bounds)
    for layer, expert in np.ndindex(5, 4):
        assert tuple(bounds[one] for one in at[layer, expert]) == table.of(layer, expert)


def test_makers_are_found_by_name() -> None:
    assert all(kind_named(name) is maker for name, maker in KINDS.items())
    with pytest.raises(InputError, match="there are uniform, zones, layers, hotness, matrix"):
        kind_named("random")
