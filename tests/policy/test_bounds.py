import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from offsim.codec.bounds import Bound
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
