import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.accuracy.scopes import Places
from offsim.accuracy.sensitivity_parts import Place
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, Rule
from offsim.study.sensitivity_design import (
    JOINT_SHARE,
    LADDER,
    LEAST_JOINTS,
    Design,
    Options,
    Timing,
    Trial,
    designed,
    errors_of,
)

from .sensitive import FACTS, USAGE, options

CELL = Timing(cell_s=1.0, ask_s=1.0)
LAYERS, MATRICES, EXPERTS = 3 * 5, 3 * 9, 3 * 4
"""Cells of layers at 5 rungs, of matrices at 3, of experts at one."""


def design(minutes: float, **changes: object) -> Design:
    return designed(options(minutes, **changes), FACTS, USAGE, CELL)


def cells(found: Design) -> list[Trial]:
    return [trial for trial in found.trials if trial.place is not None]


def kinds(found: Design) -> list[str]:
    """Of each cell: layer, matrix or expert."""
    places = [trial.place for trial in cells(found) if trial.place is not None]
    return ["matrix" if p.matrix else "layer" if p.expert is None else "expert" for p in places]


def test_the_least_is_three_rungs_of_layers_and_a_few_joint_injections() -> None:
    found = design(0.01)
    assert kinds(found) == ["layer"] * 9
    assert {str(trial.bound) for trial in cells(found)} == {
        "sigma:0.03125",
        "sigma:0.125",
        "sigma:0.5",
    }
    assert len(found.trials) - 9 == LEAST_JOINTS
    assert "this is the least" in found.summary


def test_layers_come_before_matrices_before_experts_before_seeds() -> None:
    found = design(10)
    order = kinds(found)
    assert order[: LAYERS + MATRICES + EXPERTS] == (
        ["layer"] * LAYERS + ["matrix"] * MATRICES + ["expert"] * EXPERTS
    )
    seeds = [trial.errors[0].seed for trial in cells(found)]
    assert seeds == sorted(seeds)
    assert max(seeds) > 0
    assert "this is the least" not in found.summary


def test_the_most_used_experts_come_first() -> None:
    found = [t.place for t in cells(design(10)) if t.place and t.place.expert is not None]
    assert found[:3] == [
        Place(layer=0, expert=0),
        Place(layer=1, expert=3),
        Place(layer=2, expert=1),
    ]


@pytest.mark.parametrize(("by", "has"), [("layer", {"layer"}), ("matrix", {"layer", "matrix"})])
def test_places_are_as_fine_as_asked_for(by: str, has: set[str]) -> None:
    found = design(30, by=by)
    assert set(kinds(found)) == has
    assert {"experts"} & {trial.varied for trial in found.trials} == set()


def test_a_source_without_noise_has_one_seed() -> None:
    found = design(60, source="codec:cuszp")
    assert {error.seed for trial in found.trials for error in trial.errors} == {0}
    assert len({trial.key for trial in found.trials}) == len(found.trials)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 10), st.floats(0.1, 20), st.floats(0, 60))
def test_a_design_fits_its_budget_and_is_a_function_of_it(
    minutes: float, cell_s: float, ask_s: float
) -> None:
    timing = Timing(cell_s=cell_s, ask_s=ask_s)
    found = designed(options(minutes), FACTS, USAGE, timing)
    assert found == designed(options(minutes), FACTS, USAGE, timing)
    assert len({trial.key for trial in found.trials}) == len(found.trials)
    joints = len(found.trials) - len(cells(found))
    if "this is the least" not in found.summary:
        assert found.seconds <= 60 * minutes
    if joints > LEAST_JOINTS:
        assert joints * (cell_s + ask_s) <= JOINT_SHARE * 60 * minutes * (1 + 1e-9)
    taken = joints * (cell_s + ask_s) + len(cells(found)) * cell_s
    assert found.seconds == pytest.approx(taken)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 5), st.floats(0.05, 5))
def test_a_larger_budget_measures_the_same_cells_and_more(one: float, other: float) -> None:
    small, large = (cells(design(minutes)) for minutes in sorted((one, other)))
    assert large[: len(small)] == small


def test_a_cell_is_an_error_at_its_place_alone() -> None:
    places = Places(FACTS.layers, FACTS.experts)
    for trial in cells(design(10)):
        assert trial.place is not None
        (error,) = trial.errors
        assert error.bound == trial.bound
        assert np.array_equal(error.scope.mask(places), trial.place.scope.mask(places))


def test_joint_injections_put_an_error_of_the_ladder_into_every_matrix() -> None:
    found = design(10)
    joints = [trial for trial in found.trials if trial.place is None]
    assert {trial.varied for trial in joints} == {"layers", "matrices", "experts"}
    rungs = options().ladder
    off = 0
    for trial in joints:
        covered = np.zeros((FACTS.layers, FACTS.experts, 3), int)
        for error in trial.errors:
            assert error.bound is not None
            assert rungs[0] <= error.bound.value <= rungs[-1]
            off += error.bound.value not in rungs
            covered += error.scope.mask(Places(FACTS.layers, FACTS.experts))
        assert (covered == 1).all()
    assert off > len(joints)


def test_no_cell_has_the_noise_of_a_joint_injection() -> None:
    found = design(30)
    seeds = [
        {
            error.seed
            for trial in found.trials
            for error in trial.errors
            if (trial.place is None) is joint
        }
        for joint in (True, False)
    ]
    assert not seeds[0] & seeds[1]


def test_joint_injections_grow() -> None:
    largest = [
        max(error.bound.value for error in trial.errors if error.bound)
        for trial in design(10).trials
        if trial.place is None
    ]
    third = len(largest) // 3
    assert np.mean(largest[:third]) < np.mean(largest[-third:]) / 2


def test_a_table_of_bounds_becomes_errors() -> None:
    table = Bounds(
        default=Bound(0.1, "sigma"),
        rules=(Rule(bound=Bound(0.2, "sigma"), layers=(1,), matrices=("down",)),),
    )
    errors = {str(e.bound): e for e in errors_of(table, FACTS, "uniform", 3)}
    assert set(errors) == {"sigma:0.1", "sigma:0.2"}
    mask = errors["sigma:0.2"].scope.mask(Places(3, 4))
    assert mask.sum() == 4
    assert mask[1, :, 2].all()
    assert {error.seed for error in errors.values()} == {3}


def test_a_named_codec_is_its_own_source() -> None:
    rules = (Rule(codec="rtn-int4", layers=(1,)), Rule(codec="sz3", bound=Bound(0.2), layers=(2,)))
    table = Bounds(default=Bound(0.1), rules=rules)
    errors = [(e.source, e.size) for e in errors_of(table, FACTS, "codec:cuszp", 0)]
    assert errors == [("codec:cuszp", " 0.1"), ("codec:rtn-int4", ""), ("codec:sz3", " 0.2")]


def test_codecs_that_take_no_bound_are_measured_once_in_every_layer() -> None:
    plain, found = design(10), design(10, also=("rtn-int8", "rtn-int4"))
    own = [(t.codec, t.place) for t in cells(found) if t.codec is not None]
    assert own == [(c, Place(layer=n)) for c in ("rtn-int8", "rtn-int4") for n in range(3)]
    assert {t.errors[0].source for t in cells(found) if t.codec} == {
        "codec:rtn-int8",
        "codec:rtn-int4",
    }
    assert len({trial.key for trial in found.trials}) == len(found.trials)
    mixed = [trial for trial in found.trials if trial.varied == "codecs"]
    assert {rule.codec for t in mixed if t.bounds for rule in t.bounds.rules} == {
        None,
        "rtn-int8",
        "rtn-int4",
    }
    assert not [trial for trial in plain.trials if trial.varied == "codecs" or trial.codec]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bounds": ("sigma:0.1",)}, "two bounds or more"),
        ({"bounds": ("sigma:0.2", "sigma:0.1")}, "rise"),
        ({"bounds": ("sigma:0.1", "sigma:0.1")}, "rise"),
        ({"bounds": ("sigma:0.1", "rel:0.2")}, "one kind"),
        ({"source": "codec:rtn-int8"}, "takes no bound"),
        ({"source": "pink"}, "no error is called 'pink'"),
        ({"also": ("cuszp",)}, "--also cuszp: it takes a bound"),
        ({"also": ("raw",)}, "--also raw: it loses nothing"),
        ({"also": ("rtn-int4", "rtn-int4:group=128")}, "one of them is named twice"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        options(**changes)  # type: ignore[arg-type]


def test_the_ladder_without_options() -> None:
    assert Options().bounds == LADDER
    assert Options().ladder[0] == 2.0**-7
