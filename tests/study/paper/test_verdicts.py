import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.accuracy import Difference
from offsim.study.paper.verdicts import Claim, Verdict, together, verdict

CLAIMS: tuple[Claim, ...] = ("falls", "rises", "stays", "silent", "above")


def judged(claim: Claim, low: float, high: float) -> Verdict:
    return verdict(claim, Difference((low + high) / 2, low, high, 100, 5))


@pytest.mark.parametrize(
    ("claim", "low", "high", "expected"),
    [
        ("falls", -0.05, -0.02, "holds"),
        ("falls", -0.005, -0.001, "does not hold"),  # for certain, and not worth the name
        ("falls", -0.05, -0.005, "cannot be told"),
        ("falls", 0.01, 0.05, "does not hold"),
        ("rises", 0.02, 0.05, "holds"),
        ("rises", -0.05, -0.01, "does not hold"),
        ("rises", -0.01, 0.05, "cannot be told"),
        ("stays", -0.01, 0.01, "holds"),
        ("stays", 0.01, 0.05, "holds"),
        ("stays", -0.05, -0.03, "does not hold"),
        ("stays", -0.05, 0.01, "cannot be told"),
        ("silent", 0.0, 0.04, "holds"),
        ("silent", 0.06, 0.2, "does not hold"),
        ("silent", 0.04, 0.2, "cannot be told"),
        ("above", 3.6, 4.0, "holds"),
        ("above", 2.0, 3.0, "does not hold"),
        ("above", 3.0, 4.0, "cannot be told"),
    ],
)
def test_an_interval_decides(claim: Claim, low: float, high: float, expected: Verdict) -> None:
    assert judged(claim, low, high) == expected


@given(st.sampled_from(CLAIMS), st.floats(-1, 1), st.floats(0, 1))
def test_a_wider_interval_never_says_more_than_a_narrow_one(
    claim: Claim, middle: float, wide: float
) -> None:
    narrow = judged(claim, middle - wide / 2, middle + wide / 2)
    wider = judged(claim, middle - wide, middle + wide)
    assert wider in (narrow, "cannot be told")


def test_a_claim_of_several_holds_where_all_do() -> None:
    assert together(["holds", "holds"]) == "holds"
    assert together(["holds", "cannot be told"]) == "cannot be told"
    assert together(["cannot be told", "does not hold", "holds"]) == "does not hold"
