import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.accuracy import Difference
from offsim.study.paper.verdicts import Claim, Verdict, overall, together, verdict
from offsim.study.paper.verdicts import judged as judged_table

CLAIMS: tuple[Claim, ...] = ("falls", "rises", "stays", "format", "silent", "above")


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
        ("format", -0.05, -0.02, "holds"),
        ("format", -0.009, -0.001, "does not hold"),
        ("format", -0.005, 0.0, "cannot be told"),  # there may be nothing to lose
        ("falls", 0.0, 0.0, "cannot be told"),  # no item differs
        ("rises", -0.2, -0.2, "cannot be told"),
        ("above", 3.6, 4.0, "holds"),
        ("above", 2.0, 3.0, "does not hold"),
        ("above", 3.0, 4.0, "cannot be told"),
    ],
)
def test_an_interval_decides(claim: Claim, low: float, high: float, expected: Verdict) -> None:
    assert judged(claim, low, high) == expected


@given(st.sampled_from(CLAIMS), st.floats(-1, 1), st.floats(0.01, 1))
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


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["holds", "holds", "cannot be told"], "holds"),
        (["holds", "cannot be told"], "cannot be told"),  # half is not more than half
        (["holds", "holds", "holds", "does not hold"], "cannot be told"),
        (["does not hold", "does not hold", "cannot be told"], "does not hold"),
        (["does not hold", "does not hold", "holds"], "cannot be told"),
        ([], "cannot be told"),
    ],
)
def test_a_takeaway_has_one_verdict(verdicts: list[Verdict], expected: Verdict) -> None:
    assert overall(verdicts) == expected


def test_levels_above_the_papers_do_not_count_for_its_takeaway() -> None:
    def row(number: int, level: float | None, low: float) -> dict[str, object]:
        places = {"number": number, "part": "7", "level": level, "group": "g", "claim": "silent"}
        return places | {"found": low + 0.01, "low": low, "high": low + 0.02}

    table = pd.DataFrame(
        [row(1, 0.8, 0.7), row(1, 1.6, 0.0), row(1, 1.6, 0.5), row(2, 1.6, 0.0), row(3, None, 0.0)]
    )
    found = judged_table(table)
    assert found["verdict"].tolist() == [
        "does not hold",
        "holds",
        "does not hold",
        "holds",
        "holds",
    ]
    assert found["together"].tolist()[1:3] == ["does not hold"] * 2
    assert found["overall"].tolist() == [*["does not hold"] * 3, "cannot be told", "holds"]
    alone = judged_table(table[table["level"].isna()].astype({"level": object}))
    assert alone["overall"].tolist() == ["holds"]  # without any level, as of the use of experts
