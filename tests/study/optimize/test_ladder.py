import numpy as np
import pytest

from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, Rule
from offsim.study.optimize.ladder import By, ladder_of
from tests.builders import calibration, codec_figures

from .cases import COSTS, codecs, losses, of_codec


def test_rungs_are_the_calibrated_bounds_and_places_lose_by_the_terms() -> None:
    ladder = ladder_of(losses(), calibration(*codecs()), ["cuszp"])
    assert list(map(str, ladder.forms)) == ["0.125", "0.25", "0.5", "1"]
    squares = np.array([0.125, 0.25, 0.5, 1.0]) ** 2
    assert ladder.losses == pytest.approx(np.outer(COSTS, squares))


@pytest.mark.parametrize("by", ["layer", "matrix", "expert"])
def test_a_table_gives_every_place_its_bound_and_loses_what_the_ladder_says(by: By) -> None:
    found = losses()
    ladder = ladder_of(found, calibration(*codecs()), ["cuszp"], by)
    rng = np.random.default_rng(3)
    choice = rng.integers(0, 4, len(ladder.places))
    table = ladder.table(choice)
    for place, rung in zip(ladder.places, choice, strict=True):
        forms = table.of(place.layer, place.expert or 0)
        at = ("gate", "up", "down").index(place.matrix or "gate")
        assert forms[at] == ladder.forms[rung]
    places = np.arange(len(choice))
    assert found.sum_of_terms(table).mean == pytest.approx(ladder.losses[places, choice].sum())


def test_alike_places_share_a_rule() -> None:
    ladder = ladder_of(losses(), calibration(*codecs()), ["cuszp"])
    assert ladder.table(np.array([3, 3, 3])) == Bounds(default=Bound(1.0))
    assert ladder.table(np.array([3, 3, 0])) == Bounds(
        default=Bound(1.0), rules=(Rule(bound=Bound(0.125), layers=(2,)),)
    )


def test_what_does_not_go_together_is_refused() -> None:
    figures = calibration(*codecs())
    with pytest.raises(InputError, match="bounds in sigma"):
        ladder_of(losses("sigma"), figures, ["cuszp"])
    with pytest.raises(InputError, match="codec sz3 is calibrated at 0 bounds"):
        ladder_of(losses(), figures, ["sz3"])
    other = calibration(codec_figures(layers=2), layers=2)
    with pytest.raises(InputError, match="3 layers of 4 experts, and the calibration of 2 of 4"):
        ladder_of(losses(), other, ["cuszp"])
    far = calibration(codec_figures("cuszp", 0.5), codec_figures("cuszp", 2.0))
    with pytest.raises(InputError, match=r"at 1 bounds of which .* \(up to 1\)"):
        ladder_of(losses(), far, ["cuszp"])


def test_forms_of_several_codecs_are_ordered_by_what_they_lose() -> None:
    known = losses().model_copy(update={"unbounded": (of_codec("rtn-int4", 0.5, 1.0, 2.0),)})
    figures = calibration(
        *codecs(), codec_figures("rtn-int4"), codec_figures("cuszp:mode=plain", 0.5)
    )
    names = ["cuszp", "rtn-int4", "raw", "cuszp:mode=plain"]
    ladder = ladder_of(known, figures, names)
    assert list(map(str, ladder.forms)) == [
        "raw",
        "0.125",
        "0.25",
        "rtn-int4",
        "0.5",
        "cuszp:mode=plain 0.5",
        "1",
    ]
    assert ladder.losses[:, 3] == pytest.approx([0.5, 1.0, 2.0])
    assert not ladder.losses[:, 0].any()
    table = ladder.table(np.array([3, 0, 5]))
    assert table.default == Bound(0.125)  # which no place has
    assert [str(form) for form in table.table(3, 4)[0]] == [
        "rtn-int4",
        "raw",
        "cuszp:mode=plain 0.5",
    ]


def test_codecs_that_cannot_be_mixed_are_refused() -> None:
    figures = calibration(*codecs(), codec_figures("rtn-int4"))
    with pytest.raises(InputError, match="does not say what rtn-int4 loses"):
        ladder_of(losses(), figures, ["cuszp", "rtn-int4"])
    with pytest.raises(InputError, match="codec rtn-int8 is not in the calibration"):
        ladder_of(losses(), figures, ["cuszp", "rtn-int8"])
    with pytest.raises(InputError, match="codec zfp is calibrated at 0 bounds"):
        ladder_of(losses(), figures, ["cuszp", "zfp"])
    with pytest.raises(InputError, match="codec rtn-int4 takes no bound; name one that does first"):
        ladder_of(losses(), figures, ["rtn-int4", "cuszp"])
