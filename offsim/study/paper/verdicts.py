"""What an interval says of a claim: it holds, it does not, or it cannot be told."""

from collections.abc import Iterable
from typing import Literal

from offsim.accuracy import Difference

Verdict = Literal["holds", "does not hold", "cannot be told"]
Claim = Literal["falls", "rises", "stays", "silent", "above"]

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
    "silent": (False, SILENT),
    "above": (True, USED_MORE),
}
"""Of each claim: whether it is about values above the border, and the border."""
MEANINGS: dict[Claim, str] = {
    "falls": f"ICA falls by {100 * POINT:g} point or more",
    "rises": f"ICA rises by {100 * POINT:g} point or more",
    "stays": f"ICA falls by less than {100 * SLIGHT:g} points",
    "silent": f"ICA is below {100 * SILENT:g} %",
    "above": f"the ratio of activations is above {USED_MORE:g}",
}
"""What each kind of claim says."""


def verdict(claim: Claim, found: Difference) -> Verdict:
    """Judge one claim by its 95 % interval.

    It holds where the whole interval is on its side of the border, does not where the whole of it
    is on the other, and cannot be told in between.
    """
    above, border = BORDERS[claim]
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
