import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.accuracy.scopes import Places
from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import Additivity, Place
from offsim.codec.bounds import Bound
from offsim.errors import FormatError, InputError
from offsim.files import read_json, write_json
from offsim.policy.bounds import Bounds, Form, Rule

from .sensitive import LADDER, quadratic

TOY = quadratic(1.0, 10.0, 100.0)
SOME = st.floats(1e-6, 1.0)


def sigma(value: float) -> Bound:
    return Bound(value, "sigma")


def by_layer(values: list[float]) -> Bounds:
    rules = tuple(Rule(bound=sigma(v), layers=(n,)) for n, v in enumerate(values))
    return Bounds(default=sigma(LADDER[0]), rules=rules)


@pytest.mark.parametrize("value", [1e-4, LADDER[0], 0.3, LADDER[-1]])
def test_one_bound_everywhere_costs_what_its_layers_do(value: float) -> None:
    found = TOY.predict(Bounds(default=sigma(value))).kl
    assert found.mean == pytest.approx(111 * value**2)
    assert found.low == pytest.approx(0.5 * found.mean)
    assert found.high == pytest.approx(2 * found.mean)


def test_each_matrix_of_each_expert_costs_its_share() -> None:
    """Layer 1 alone is wrong where it matters: expert 0 has half of it, its down a half of that."""
    tiny = 1e-9
    rules = (Rule(bound=sigma(1.0), layers=(1,), experts=(0,), matrices=("down",)),)
    found = TOY.predict(Bounds(default=sigma(tiny), rules=rules)).kl
    assert found.mean == pytest.approx(10 * 0.5 * 0.5)


def test_terms_of_places_are_parts_of_their_layer() -> None:
    bound = Form(sigma(0.5))
    whole = TOY.term(Place(layer=2), bound).mean
    assert whole == pytest.approx(100 * 0.25)
    experts = [TOY.term(Place(layer=2, expert=e), bound).mean for e in range(4)]
    matrices = [TOY.term(Place(layer=2, matrix=m), bound).mean for m in ("gate", "up", "down")]
    assert sum(experts) == pytest.approx(whole)
    assert sum(matrices) == pytest.approx(whole)
    assert experts[0] == pytest.approx(whole / 2)
    assert TOY.term(Place(layer=2, expert=0, matrix="gate"), bound).mean == pytest.approx(whole / 8)


@given(st.lists(SOME, min_size=3, max_size=3), st.integers(0, 2), SOME)
def test_a_looser_bound_never_costs_less_and_nothing_costs_below_zero(
    values: list[float], layer: int, other: float
) -> None:
    looser = [*values]
    looser[layer] = max(values[layer], other)
    before, after = (TOY.predict(by_layer(some)).kl for some in (values, looser))
    assert 0 <= before.mean <= after.mean * (1 + 1e-12)
    assert before.low <= before.mean <= before.high


@given(st.floats(1e-30, 1e-12))
def test_the_loss_goes_to_zero_with_the_bound(value: float) -> None:
    assert 0 <= TOY.predict(Bounds(default=sigma(value))).kl.mean <= 1e-15


def test_large_losses_are_said_not_to_add_up() -> None:
    judged = Additivity(
        joints=3,
        median=0.1,
        worst=0.5,
        tolerance=0.25,
        within=0.9,
        holds_up_to=1.0,
        spread=1.5,
        regimes=(),
    )
    known = TOY.model_copy(update={"additivity": judged})
    small, large = (known.predict(Bounds(default=sigma(v))) for v in (0.05, 0.5))
    assert small.additive
    assert not large.additive
    assert small.kl.high == pytest.approx(3 * small.kl.mean)  # twice, and half as much again
    assert not TOY.predict(Bounds(default=sigma(0.05))).additive  # nothing was judged


def test_bounds_that_were_not_measured_are_refused() -> None:
    with pytest.raises(InputError, match="not of the kind sigma"):
        TOY.predict(Bounds(default=Bound(0.1)))
    with pytest.raises(InputError, match="above sigma:1, the largest"):
        TOY.predict(Bounds(default=sigma(1.01)))
    with pytest.raises(InputError, match="layer 3"):
        TOY.predict(by_layer([0.1, 0.1, 0.1, 0.1]))


def test_the_file_reads_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "sensitivity.json"
    write_json(path, TOY.model_dump(mode="json", exclude_none=True))
    assert read_json(path, Sensitivity) == TOY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("format", "offsim-bounds"),
        ("ladder", [0.5, 0.25, 0.75, 1.0]),
        ("ladder", [0.5, 1.0]),
        ("other", 1),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "sensitivity.json"
    write_json(path, TOY.model_dump(mode="json") | {field: value})
    with pytest.raises(FormatError, match=r"sensitivity\.json"):
        read_json(path, Sensitivity)


@pytest.mark.parametrize("change", ["shares", "falling"])
def test_terms_that_cannot_be_are_refused(tmp_path: Path, change: str) -> None:
    data = json.loads(TOY.model_dump_json())
    layer = data["terms"]["layers"][1]
    if change == "shares":
        layer["matrices"] = [0.5, 0.5, 0.5]
    else:
        layer["kl"].reverse()
    path = tmp_path / "sensitivity.json"
    write_json(path, data)
    with pytest.raises(FormatError, match=r"shares sum to 1\.5|does not fall"):
        read_json(path, Sensitivity)


def test_a_place_is_a_scope() -> None:
    places = Places(3, 4)
    assert Place(layer=1).scope.mask(places).sum() == 4 * 3
    one = Place(layer=1, expert=2, matrix="down")
    assert one.scope.mask(places)[1, 2].tolist() == [False, False, True]
    assert one.scope.mask(places).sum() == 1
    assert str(one) == "layer 1 expert 2 down"
