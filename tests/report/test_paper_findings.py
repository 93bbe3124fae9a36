from dataclasses import replace

import pandas as pd
import pytest

from offsim.report.paper_data import COLUMNS, PaperData
from offsim.report.paper_findings import answer, beyond, missing

EMPTY = PaperData(
    {}, **{name: pd.DataFrame(columns=list(names)) for name, names in COLUMNS.items()}
)


def takeaways(*verdicts: str) -> PaperData:
    rows = [
        {
            "number": 2,
            "takeaway": "It is so.",
            "part": "6",
            "level": at,
            "group": "g",
            "together": v,
            "overall": "cannot be told",
        }
        for at, v in enumerate(verdicts)
    ]
    return replace(EMPTY, takeaways=pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("verdicts", "says"),
    [
        (("holds", "holds"), "It holds in 2 comparisons."),
        (("does not hold",), "It does not hold in the one comparison."),
        (("cannot be told",) * 3, "It cannot be told from 3 comparisons."),
        (
            ("holds", "does not hold", "cannot be told"),
            "Of 3 comparisons it holds in 1, does not in 1, and in 1 it cannot be told.",
        ),
    ],
)
def test_verdicts_are_counted(verdicts: tuple[str, ...], says: str) -> None:
    assert answer(takeaways(*verdicts)) == [
        (2, f"“It is so.” Cannot be told at the paper's levels. {says}")
    ]


def test_comparisons_that_belong_together_count_once() -> None:
    data = takeaways("does not hold")
    twice = pd.concat([data.takeaways, data.takeaways])
    assert "the one comparison" in answer(replace(data, takeaways=twice))[0][1]


def test_sources_are_compared_by_how_far_they_diverge() -> None:
    def pair(how: str, first: str, second: str, *kl: float) -> dict[str, object]:
        names = {"part": "codecs", "how": how, "first": first, "second": second}
        return {**names, "kl_first": kl[0], "kl_second": kl[1]}

    rows = [
        pair("equal bound", "normal", "uniform", 0.3, 0.1),
        pair("equal bound", "normal", "uniform", 0.8, 0.2),
        pair("equal bound", "uniform", "sz3", 0.2, 0.2),
        pair("equal size", "cuszp", "sz3", 0.4, 0.1),
        pair("equal size", "rtn-int4", "sz3", 0.1, 0.05),
    ]
    assert beyond(replace(EMPTY, comparisons=pd.DataFrame(rows))) == [
        "At an equal bound, Normal noise in all experts diverges 3.00 to 4.00 times as far (KL) as "
        "uniform noise.",
        "At an equal bound, sz3 diverges 1.00 times as far (KL) as uniform noise.",
        "At an equal size, sz3 diverges 0.25 times as far (KL) as cuszp.",
        "At the size of rtn-int4, sz3 diverges 0.50 times as far (KL) as it.",
    ]


def test_halves_are_told_at_their_largest_error() -> None:
    rows = [
        {"part": "experts", "how": "", "place": place, "level": level, "ica_change": change}
        for place, level, change in (("hot half", 0.5, -0.1), ("hot half", 1.0, -0.4))
    ]
    assert beyond(replace(EMPTY, cells=pd.DataFrame(rows))) == [
        "Uniform noise of 1 sigma costs, in the hot half of the experts 40.0 points of ICA."
    ]


def test_a_study_of_few_items_or_cells_says_so() -> None:
    parts = {"6": {"cells": 12, "measured": 12}, "7": {"cells": 12, "measured": 3}}
    facts = {"parts": parts, "plan": {"seeds": 2}, "items": {"mixed": 1100}}
    said = " ".join(missing(replace(EMPTY, summary=facts)))
    assert "of the parts 7: call" in said
    assert "This is a quick look" in said
    whole = {**facts, "parts": {"6": parts["6"]}, "plan": {"seeds": 5}}
    assert missing(replace(EMPTY, summary=whole)) == []
