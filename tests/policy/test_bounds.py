from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.files import read_yaml, write_yaml
from offsim.policy.bounds import MATRICES, Bounds, Form, Rule, bounds_of, check_one_place

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
    assert bounds_of(bounds.of(0, 3)) == [fine, fine, fine]
    assert bounds_of(bounds.of(1, 3)) == [fine, fine, Bound(0.01, "rel")]
    assert bounds_of(bounds.of(1, 2)) == [fine, fine, fine]
    assert bounds_of(bounds.of(5, 0)) == [wide, wide, wide]
    assert bounds_of(bounds.of(7, 0)) == [wide, Bound(0.5), wide]


def test_order_of_rules_matters() -> None:
    first = {**FULL, "rules": list(reversed(FULL["rules"]))}  # type: ignore[call-overload]
    assert Bounds.model_validate(first).of(1, 3)[2] == Form(Bound(0.001))


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
        )
        | st.builds(Rule, codec=st.just("rtn-int4"), layers=st.lists(st.integers(0, 2))),
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
        expected = Form(Bound(10.0))
        for rule in rules:
            if rule.covers(layer, expert, matrix):
                expected = rule.form
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
        {"rules": [{"codec": "cuszp"}]},
        {"rules": [{"codec": "rtn-int4", "bound": 0.1}]},
        {"rules": [{"codec": "nobody"}]},
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
        )
        | st.builds(Rule, codec=st.just("rtn-int8"), experts=st.lists(st.integers(0, 3))),
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


def test_a_rule_may_name_a_codec(tmp_path: Path) -> None:
    rules = [
        {"codec": "rtn-int4", "layers": [0]},
        {"codec": "sz3", "bound": 0.25, "layers": [1]},
        {"bound": 0.5, "layers": [2]},
    ]
    table = Bounds.model_validate({"default": 1, "rules": rules})
    forms = (Form(None, "rtn-int4"), Form(Bound(0.25), "sz3"), Form(Bound(0.5)), Form(Bound(1)))
    assert tuple(table.of(layer, 0)[0] for layer in range(4)) == forms
    assert tuple(map(str, forms)) == ("rtn-int4", "sz3 0.25", "0.5", "1")
    assert table.codecs == ("rtn-int4", "sz3")
    usual = codec_named("cuszp")
    assert [form.coded_by(usual).name for form in forms] == ["rtn-int4", "sz3", "cuszp", "cuszp"]
    write_yaml(tmp_path / "b.yaml", table)
    assert read_yaml(tmp_path / "b.yaml", Bounds) == table


def test_a_table_without_codecs_is_written_as_before_there_were_any() -> None:
    assert Bounds.model_validate(FULL).model_dump(mode="json")["rules"][0] == {
        "bound": 0.001,
        "layers": [0, 1],
        "experts": None,
        "matrices": None,
    }
    assert Bounds.model_validate(FULL).digest == "9d13e22d"


def test_codecs_that_decode_in_different_places_are_refused() -> None:
    mixed = Bounds(default=Bound(1.0), rules=(Rule(codec="rtn-int4", layers=(0,)),))
    check_one_place(codec_named("cuszp"), mixed)
    with pytest.raises(InputError, match="rtn-int4, which decodes on the device, beside sz3"):
        check_one_place(codec_named("sz3"), mixed)
