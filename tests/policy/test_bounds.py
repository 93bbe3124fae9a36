from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.files import read_yaml, write_yaml
from offsim.policy.bounds import MATRICES, Bounds, Rule

FULL = {
    "format": "offsim-bounds",
    "version": 1,
    "default": "sigma:0.05",
    "rules": [
        {"bound": 0.001, "layers": [0, 1]},
        {"bound": "rel:0.01", "layers": [1], "experts": [3], "matrices": ["down"]},
        {"bound": 0.5, "matrices": ["up"], "layers": [7]},
    ],
}


def test_the_last_rule_that_covers_a_matrix_decides() -> None:
    bounds = Bounds.model_validate(FULL)
    fine, wide = Bound(0.001), Bound(0.05, "sigma")
    assert bounds.of(0, 3) == (fine, fine, fine)
    assert bounds.of(1, 3) == (fine, fine, Bound(0.01, "rel"))
    assert bounds.of(1, 2) == (fine, fine, fine)
    assert bounds.of(5, 0) == (wide, wide, wide)
    assert bounds.of(7, 0) == (wide, Bound(0.5), wide)


def test_order_of_rules_matters() -> None:
    first = {**FULL, "rules": list(reversed(FULL["rules"]))}  # type: ignore[call-overload]
    assert Bounds.model_validate(first).of(1, 3)[2] == Bound(0.001)


def test_round_trip() -> None:
    bounds = Bounds.model_validate(FULL)
    assert Bounds.model_validate(bounds.model_dump(mode="json")) == bounds
    assert bounds.model_dump(mode="json")["rules"][1]["bound"] == "rel:0.01"


@settings(derandomize=True, deadline=None)
@given(
    rules=st.lists(
        st.builds(
            Rule,
            bound=st.integers(1, 9),
            layers=st.none() | st.lists(st.integers(0, 2), max_size=2),
            experts=st.none() | st.lists(st.integers(0, 2), max_size=2),
            matrices=st.none() | st.lists(st.sampled_from(MATRICES), max_size=2),
        ),
        max_size=5,
    ),
    layer=st.integers(0, 2),
    expert=st.integers(0, 2),
)
def test_same_as_going_through_the_rules_in_order(
    rules: list[Rule], layer: int, expert: int
) -> None:
    for matrix, found in zip(
        MATRICES, Bounds(default=Bound(10.0), rules=rules).of(layer, expert), strict=True
    ):
        expected = Bound(10.0)
        for rule in rules:
            if rule.covers(layer, expert, matrix):
                expected = rule.bound
        assert found == expected


@pytest.mark.parametrize(
    "change",
    [
        {"default": "psnr:60"},
        {"default": -1},
        {"default": True},
        {"default": None},
        {"version": 2},
        {"format": "other"},
        {"rules": [{"bound": 1, "layers": [-1]}]},
        {"rules": [{"bound": 1, "matrices": ["gate_up"]}]},
        {"rules": [{"layers": [1]}]},
        {"extra": 1},
    ],
    ids=str,
)
def test_what_is_not_a_table_of_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Bounds.model_validate({**FULL, **change})


@settings(derandomize=True, deadline=None)
@given(
    rules=st.lists(
        st.builds(
            Rule,
            bound=st.integers(1, 4),
            layers=st.none() | st.lists(st.integers(0, 2), max_size=2),
            experts=st.none() | st.lists(st.integers(0, 3), max_size=2),
            matrices=st.none() | st.lists(st.sampled_from(MATRICES), max_size=2),
        ),
        max_size=5,
    )
)
def test_all_places_at_once(rules: list[Rule]) -> None:
    table = Bounds(default=Bound(3.0), rules=rules)
    bounds, at = table.table(3, 4)
    assert sorted(set(at.reshape(-1).tolist())) == list(range(len(bounds)))
    for layer in range(3):
        for expert in range(4):
            assert tuple(bounds[n] for n in at[layer, expert]) == table.of(layer, expert)


@pytest.mark.parametrize(("layers", "experts", "what"), [(7, 4, "layer 7"), (8, 3, "expert 3")])
def test_a_table_of_another_model_is_refused(layers: int, experts: int, what: str) -> None:
    table = Bounds.model_validate(FULL)
    assert table.table(8, 4)[1].shape == (8, 4, 3)
    with pytest.raises(InputError, match=f"is about {what}, and the model has"):
        table.table(layers, experts)


def test_a_bound_is_written_to_the_last_bit(tmp_path: Path) -> None:
    bounds = Bounds(default=Bound(2.0**-19 / 3), rules=(Rule(bound=Bound(0.1 / 3, "sigma")),))
    write_yaml(tmp_path / "b.yaml", bounds)
    assert read_yaml(tmp_path / "b.yaml", Bounds) == bounds


def test_tables_are_keys_with_a_digest() -> None:
    full = Bounds.model_validate(FULL)
    other = Bounds.model_validate({**FULL, "default": 0.5})
    assert len({full, Bounds.model_validate(FULL), other}) == 2
    assert full.digest == Bounds.model_validate(FULL).digest != other.digest
    assert str(full) == "bounds 3 rules"
    assert str(Bounds(default=Bound(1.0), rules=(Rule(bound=Bound(2.0)),))) == "bounds 1 rule"
