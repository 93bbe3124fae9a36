"""What an interval says of a claim: it holds, it does not, or it cannot be told."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd

from offsim.accuracy import Difference

Verdict = Literal["holds", "does not hold", "cannot be told"]
Claim = Literal["falls", "rises", "stays", "format", "silent", "above"]

POINT = 0.01
"""Of a share of items: a change below this is none worth the name. It is the last digit that the
paper prints."""
SLIGHT = 0.02
"""Loss, a share of items, up to which accuracy counts as barely changed."""
SILENT = 0.05
"""Share of right answers below which a model counts as one without valid output."""
USED_MORE = 3.5
"""The paper has about ten experts with more than 35,000 activations, most below 10,000."""

BORDERS: dict[Claim, tuple[bool, float]] = {
    "falls": (False, -POINT),
    "rises": (True, POINT),
    "stays": (True, -SLIGHT),
    "format": (False, -POINT),
    "silent": (False, SILENT),
    "above": (True, USED_MORE),
}
"""Of each claim: whether it is about values above the border, and the border."""
CEILINGS: dict[Claim, float] = {"format": 0.0}
"""What a value cannot exceed: ICA is at most PIA. A model that has nothing of it to lose lies
there, and says nothing of one that has."""
ROUNDING = 1e-9
"""Of a share: an interval narrower than this has no width."""
PAPERS = 0.8
"""The largest of the paper's levels, a share of mean|w|; larger ones do not count for it."""
MEANINGS: dict[Claim, str] = {
    "falls": f"ICA falls by {100 * POINT:g} point or more",
    "rises": f"ICA rises by {100 * POINT:g} point or more",
    "stays": f"ICA falls by less than {100 * SLIGHT:g} points",
    "format": f"ICA falls by {100 * POINT:g} point or more beyond PIA",
    "silent": f"ICA is below {100 * SILENT:g} %",
    "above": f"the ratio of activations is above {USED_MORE:g}",
}
"""What each kind of claim says."""


def verdict(claim: Claim, found: Difference) -> Verdict:
    """Judge one claim by its 95 % interval.

    It holds where the whole interval is on its side of the border, does not where the whole of it
    is on the other, and cannot be told in between. Nor can it where the interval has no width,
    because no item differs in any seed, or reaches what the value cannot exceed.
    """
    above, border = BORDERS[claim]
    if found.high - found.low < ROUNDING or found.high > CEILINGS.get(claim, math.inf) - ROUNDING:
        return "cannot be told"
    if found.low > border:
        return "holds" if above else "does not hold"
    if found.high < border:
        return "does not hold" if above else "holds"
    return "cannot be told"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim that needs all of several: one that fails decides, then one that is open."""
    found = set(verdicts)
    if "does not hold" in found:
        return "does not hold"
    return "cannot be told" if "cannot be told" in found else "holds"


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a takeaway: it holds where more than half of its comparisons do and none does not.

    It does not hold where more than half do not and none does, and else cannot be told; nor can it
    without any comparison.
    """
    holds, fails = (verdicts.count(one) for one in ("holds", "does not hold"))
    if fails == 0 and 2 * holds > len(verdicts):
        return "holds"
    return "does not hold" if holds == 0 and 2 * fails > len(verdicts) else "cannot be told"


def joined(takeaways: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of one takeaway, those that count together as one."""
    return takeaways.drop_duplicates(["part", "level", "group"])


def judged(evidence: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on comparisons, and what they come to.

    Args:
        evidence: a row a comparison: number of the takeaway, part, level (NaN for none), group,
            claim, and found, low and high, shares 0..1 or a ratio.

    Returns:
        The same with `verdict` of each comparison, `together` of those of one part, level and
        group, and `overall` of the takeaway: of its groups at the paper's own levels.
    """
    found = evidence.copy()
    found["verdict"] = [
        verdict(row["claim"], Difference(row["found"], row["low"], row["high"], 0, 0))
        for row in evidence.to_dict("records")
    ]
    whole = found.groupby(["number", "part", "level", "group"], dropna=False)["verdict"]
    found["together"] = whole.transform(together)
    ends = {
        number: overall(
            [
                row["together"]
                for row in joined(own).to_dict("records")
                if pd.isna(row["level"]) or row["level"] <= PAPERS
            ]
        )
        for number, own in found.groupby("number")
    }
    found["overall"] = found["number"].map(ends)
    return found
