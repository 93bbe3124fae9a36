import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import BaseModel

from offsim.accuracy.scopes import ALL, Places, Scope, ScopeText, group_layers, scaled_layer
from offsim.errors import InputError

USAGE = np.array([[5, 9, 9, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
SMALL = Places(3, 4, USAGE)
MODEL = Places(9, 8)


def cells(text: str, places: Places = SMALL) -> set[tuple[int, ...]]:
    return set(map(tuple, np.argwhere(Scope(text).mask(places)).tolist()))


def whole(*experts: tuple[int, int]) -> set[tuple[int, ...]]:
    return {(layer, expert, matrix) for layer, expert in experts for matrix in range(3)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layer:1", whole(*((1, e) for e in range(4)))),
        ("layers:0,2", whole(*((layer, e) for layer in (0, 2) for e in range(4)))),
        ("layers:0-1", whole(*((layer, e) for layer in (0, 1) for e in range(4)))),
        ("expert:2/3", whole((2, 3))),
        ("expert:2/0,2-3", whole((2, 0), (2, 2), (2, 3))),
        ("top1:all", whole((0, 1), (1, 3), (2, 0))),
        ("top2:layer:0", whole((0, 1), (0, 2))),
        ("top3:layer:0", whole((0, 0), (0, 1), (0, 2))),
        ("!top3:all", whole((0, 3), (1, 0), (2, 3))),
        ("top2:layer:1 & matrix:down", {(1, 2, 2), (1, 3, 2)}),
        ("expert:0/0 & matrix:gate,up", {(0, 0, 0), (0, 0, 1)}),
        ("zone:middle", whole(*((1, e) for e in range(4)))),
        ("expert:0/0 | layer:1 & expert:1/2", whole((0, 0), (1, 2))),
        ("layer:0 & layer:1", set()),
        ("!all", set()),
    ],
)
def test_what_is_in_a_scope(text: str, expected: set[tuple[int, ...]]) -> None:
    assert cells(text) == expected


def test_all_is_every_matrix() -> None:
    assert ALL.mask(MODEL).all()


def test_most_used_are_taken_of_what_the_term_holds() -> None:
    assert cells("top1:expert:0/0,3") == whole((0, 0))


def test_zones_are_those_of_tables_of_bounds() -> None:
    zones = [cells(f"zone:{name}", Places(7, 1)) for name in ("shallow", "middle", "deep")]
    assert [sorted({cell[0] for cell in zone}) for zone in zones] == [[0, 1, 2], [3, 4], [5, 6]]


def test_groups_of_the_paper_s_depth_are_the_paper_s() -> None:
    assert group_layers(26) == [range(10), range(8, 18), range(16, 26)]


def test_groups_of_the_embedded_depth() -> None:
    assert group_layers(9) == [range(4), range(2, 6), range(5, 9)]
    assert {cell[0] for cell in cells("group:2", MODEL)} == {2, 3, 4, 5}


@given(st.integers(3, 200))
def test_groups_are_equal_cover_all_layers_and_overlap(layers: int) -> None:
    first, second, third = group_layers(layers)
    assert len(first) == len(second) == len(third)
    assert (first.start, third.stop) == (0, layers)
    assert set(first) | set(second) | set(third) == set(range(layers))
    if layers not in (3, 5):  # too few for a layer in two groups, or for two of them
        assert set(first) & set(second) or set(second) & set(third)


def test_layers_of_the_paper_are_scaled_by_depth() -> None:
    assert [scaled_layer(layer, 26) for layer in range(1, 27)] == list(range(26))
    assert [scaled_layer(layer, 9) for layer in (1, 13, 20, 26)] == [0, 4, 6, 8]
    with pytest.raises(InputError, match="1 to 26, not 27"):
        scaled_layer(27, 9)


@given(arrays(np.bool_, (3, 4, 3)).filter(lambda mask: bool(mask.any())))
def test_any_mask_is_a_scope(mask: np.ndarray) -> None:
    scope = Scope.of(mask)
    assert np.array_equal(scope.mask(SMALL), mask)
    assert Scope(str(scope)) == scope


@given(st.sampled_from(["all", "layer:1", "expert:0/1-2", "top2:all", "zone:deep", "matrix:up"]))
def test_negation_is_the_complement(text: str) -> None:
    assert np.array_equal(Scope(f"!{text}").mask(SMALL), ~Scope(text).mask(SMALL))


def test_nothing_is_no_scope_of_a_mask() -> None:
    with pytest.raises(InputError, match="at least one matrix"):
        Scope.of(np.zeros((1, 1, 3), np.bool_))


def test_scopes_are_values_and_blanks_say_nothing() -> None:
    assert {Scope("layer:0&matrix:up"), Scope(" layer:0 & matrix:up ")} == {
        Scope("layer:0&matrix:up")
    }


def test_scopes_survive_json() -> None:
    class Holder(BaseModel):
        scope: ScopeText

    holder = Holder(scope=Scope("top2:zone:deep&matrix:down"))
    assert Holder.model_validate_json(holder.model_dump_json()) == holder


@pytest.mark.parametrize(
    "text", ["", "layer", "layer:", "layer:x", "expert:1", "top0:all", "zone:top", "group:4",
             "matrix:left", "all&", "|all", "top2:", "layers:1,,2", "layer:1-2"],
)  # fmt: skip
def test_what_is_no_scope(text: str) -> None:
    with pytest.raises(InputError, match="is no scope"):
        Scope(text)


@pytest.mark.parametrize("text", ["layer:3", "layers:1-3", "layers:2-1", "expert:0/4"])
def test_places_that_the_model_does_not_have(text: str) -> None:
    with pytest.raises(InputError, match="the model has"):
        Scope(text).mask(SMALL)


def test_the_most_used_need_usage() -> None:
    with pytest.raises(InputError, match="top6:layer:0 needs the usage"):
        Scope("top6:layer:0").mask(MODEL)


@pytest.mark.parametrize("text", ["zone:deep", "group:1"])
def test_two_layers_have_no_thirds(text: str) -> None:
    with pytest.raises(InputError, match="not of 2"):
        Scope(text).mask(Places(2, 4))


def test_usage_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="has 9 layers of 8"):
        Places(9, 8, USAGE)
