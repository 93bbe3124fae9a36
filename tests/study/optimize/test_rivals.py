from dataclasses import replace

import pytest

from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds
from offsim.study.case import Case
from offsim.study.optimize.answer import Optimized, optimize
from offsim.study.optimize.budget import Budget
from offsim.study.optimize.rivals import Rival, rivals
from tests.builders import codec_figures

from .cases import LADDER, losses, machine, of_codec


@pytest.fixture(scope="module")
def case() -> Case:
    made = machine()
    others = (codec_figures("rtn-int8", blob_bytes=500), codec_figures("rtn-int4", blob_bytes=300))
    codecs = [*made.calibration.codecs, *others]
    return replace(made, calibration=made.calibration.model_copy(update={"codecs": codecs}))


@pytest.fixture(scope="module")
def found(case: Case) -> Optimized:
    return optimize(case, losses(), Budget("kl", 3.0))


def of_kind(made: list[Rival], kind: str) -> list[Rival]:
    return [rival for rival in made if rival.kind == kind]


def test_the_answer_comes_first_and_every_other_way_after_it(case: Case, found: Optimized) -> None:
    made = rivals(case, losses(), found)
    assert made[0].bounds == found.bounds
    assert made[0].loss is not None
    assert made[0].loss.mean == pytest.approx(3.0)
    assert [rival.policy.bound for rival in of_kind(made, "uniform")] == list(LADDER)
    assert [rival.name for rival in of_kind(made, "other")] == ["rtn-int8", "rtn-int4"]
    assert [rival.name for rival in of_kind(made, "raw")] == ["raw"]
    adaptive = [rival.policy for rival in of_kind(made, "adaptive")]
    assert [policy.low.bound for policy in adaptive if policy.low] == list(LADDER[1:])


def test_another_codec_loses_what_the_sensitivity_says_if_it_does(
    case: Case, found: Optimized
) -> None:
    known = losses().model_copy(update={"unbounded": (of_codec("rtn-int4", 0.1, 0.2, 0.3),)})
    first, second = of_kind(rivals(case, known, found), "other")
    assert first.loss is None
    assert second.loss is not None
    assert second.loss.mean == pytest.approx(0.6)


def test_of_bounds_beyond_the_ladder_it_is_not_known_what_they_lose(
    case: Case, found: Optimized
) -> None:
    short = losses().model_copy(update={"ladder": LADDER[:2]})
    terms = short.terms.model_copy(
        update={
            "layers": tuple(one.model_copy(update={"kl": one.kl[:2]}) for one in short.terms.layers)
        }
    )
    short = short.model_copy(update={"terms": terms})
    tight = Bounds(default=Bound(LADDER[0]))
    answer = replace(found, bounds=tight, zones=replace(found.zones, bounds=tight))
    uniform = of_kind(rivals(case, short, answer), "uniform")
    assert [rival.policy.bound for rival in uniform] == list(LADDER[:2])
