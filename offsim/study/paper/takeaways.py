"""The paper's takeaways, each judged by intervals of what was measured here.

A takeaway is a sentence with the comparisons that it comes to, at every level that the study has.
Several comparisons at one level belong together: "the middle is worst" takes two. Each interval is
of 95 % for itself, so that of twenty verdicts about one may be owed to chance. The verdict on the
takeaway is by the paper's own levels alone (`offsim.study.paper.verdicts.overall`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from offsim.accuracy import Difference
from offsim.study.paper.design import Cell, Entry
from offsim.study.paper.numbers import GROUPS, LAYERS
from offsim.study.paper.results import Results
from offsim.study.paper.verdicts import PAPERS, Claim, judged
from offsim.trace import Trace
from offsim.trace.statistics import usage

FIRST, MIDDLE, _, LAST = (f"L{number}" for number in LAYERS)
SHALLOW, CENTRE, DEEP = GROUPS.values()
RESAMPLES = 2000
"""Of requests, for the interval of how unevenly experts are used."""
ONE_LAYER = ("4", "5", "6")
"""Tables of errors in single layers."""
PARTS_ASKED = ("3", *ONE_LAYER, "7", "8", "9")
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One comparison that a takeaway comes to.

    Attributes:
        part: of the study.
        level: of the error, a share of mean|w|; None where there is none.
        compared: what with what, in words.
        claim: what it has to do for the takeaway.
        found: the change of ICA, 0..1, or for `format` that less the one of PIA, for `silent` ICA
            itself, for `above` a ratio.
        group: what all comparisons of it, at one part and level, have to hold for; by default
            each counts for itself.
    """

    part: str
    level: float | None
    compared: str
    claim: Claim
    found: Difference
    group: str = ""


class Cells:
    """The measured cells by their places in the tables.

    Args:
        entries: of all parts.
        results: the runs.
    """

    def __init__(self, entries: Sequence[Entry], results: Results) -> None:
        self.results = results
        self._cells = {
            (entry.part, entry.place, entry.level): entry.cell
            for entry in entries
            if entry.part in PARTS_ASKED and results.has(entry.cell)
        }

    def at(self, part: str, place: str) -> dict[float, Cell]:
        """The cells of a place by level, smallest first."""
        found = {
            level: cell
            for (own, where, level), cell in self._cells.items()
            if (own, where) == (part, place)
        }
        return dict(sorted(found.items()))

    def changes(self, part: str, place: str, claim: Claim) -> Iterator[Evidence]:
        """Each level of a place against the model without an error."""
        for level, cell in self.at(part, place).items():
            yield Evidence(part, level, place, claim, self.results.change(cell, "ica"))

    def between(
        self, one: tuple[str, str], two: tuple[str, str], compared: str, group: str = ""
    ) -> Iterator[Evidence]:
        """Whether ICA is lower in the second of two (part, place), level by level."""
        first, second = self.at(*one), self.at(*two)
        for level in sorted(first.keys() & second.keys()):
            found = self.results.against(first[level], second[level], "ica")
            yield Evidence(two[0], level, compared, "falls", found, group)


def _shallow(cells: Cells, _: Trace) -> Iterator[Evidence]:
    for part in ONE_LAYER:
        yield from cells.changes(part, FIRST, "stays")


def _middle(cells: Cells, _: Trace) -> Iterator[Evidence]:
    yield from _worst(cells, ("4", "6"), "7")


def _second_set(cells: Cells, _: Trace) -> Iterator[Evidence]:
    yield from _worst(cells, ("8",), "9")


def _worst(cells: Cells, single: Sequence[str], groups: str) -> Iterator[Evidence]:
    """That the middle is worse than both ends, in single layers and in groups."""
    for part in single:
        for other in (FIRST, LAST):
            text = f"{MIDDLE} against {other}"
            yield from cells.between((part, other), (part, MIDDLE), text, MIDDLE)
    for other in (SHALLOW, DEEP):
        text = f"{CENTRE} against {other}"
        yield from cells.between((groups, other), (groups, CENTRE), text, CENTRE)


def _deep(cells: Cells, _: Trace) -> Iterator[Evidence]:
    for part in (*ONE_LAYER, "8"):
        yield from cells.changes(part, LAST, "rises")
    for part in ("7", "9"):
        yield from cells.changes(part, DEEP, "rises")


def _larger(cells: Cells, _: Trace) -> Iterator[Evidence]:
    places = [("3", FIRST), *(("7", group) for group in GROUPS.values())]
    for part, place in places:
        levels = list(cells.at(part, place).items())
        for (low, small), (high, large) in pairwise(levels):
            found = cells.results.against(small, large, "ica")
            text = f"{place}, {high:.0%} against {low:.0%}"
            yield Evidence(part, high, text, "falls", found)


def _all_experts(cells: Cells, _: Trace) -> Iterator[Evidence]:
    for number in LAYERS:
        place = f"L{number}"
        yield from cells.between(("4", place), ("6", place), f"{place}, all against one")


def _format(cells: Cells, _: Trace) -> Iterator[Evidence]:
    for number in LAYERS:
        for level, cell in cells.at("6", f"L{number}").items():
            found = cells.results.format_lost(cell)
            text = f"L{number}, change of ICA less that of PIA"
            yield Evidence("6", level, text, "format", found)


def _silent(cells: Cells, _: Trace) -> Iterator[Evidence]:
    for group in GROUPS.values():
        for level, cell in cells.at("7", group).items():
            if level == PAPERS:
                found = cells.results.level(cell, "ica")
                yield Evidence("7", level, f"{group}, ICA", "silent", found)


def _uneven(_: Cells, trace: Trace) -> Iterator[Evidence]:
    yield Evidence("usage", None, "most used over median expert", "above", unevenness(trace))


def unevenness(trace: Trace) -> Difference:
    """Activations of the most used expert of a layer over those of the median one.

    Returns:
        The mean over the layers, and its interval from a bootstrap over requests.
    """
    requests = np.unique(trace.request)
    counts = np.stack([usage(_only(trace, request)) for request in requests])
    drawn = np.random.default_rng(0)
    shares = np.full(len(requests), 1 / len(requests))
    times = drawn.multinomial(len(requests), shares, RESAMPLES)
    ratios = _ratio(np.einsum("nr,rle->nle", times, counts))
    low, high = np.quantile(ratios, [0.025, 0.975])
    mean = float(_ratio(counts.sum(0, keepdims=True))[0])
    return Difference(mean, float(low), float(high), len(requests), 1)


def _only(trace: Trace, request: int) -> Trace:
    rows = trace.request == request
    arrays = {name: array[rows] for name, array in trace.arrays().items()}
    return Trace(trace.info, **arrays)


def _ratio(counts: Counts) -> npt.NDArray[np.float64]:
    """Of counts [draws, layers, experts], [draws]; a median of 0 counts as one activation."""
    ratio = counts.max(2) / np.maximum(np.median(counts, axis=2), 1)
    result: npt.NDArray[np.float64] = ratio.mean(1)
    return result


TAKEAWAYS: Mapping[str, Callable[[Cells, Trace], Iterator[Evidence]]] = {
    "Errors in shallow experts barely cost accuracy.": _shallow,
    "Errors in the middle layers cost most.": _middle,
    "Errors in the deepest experts can improve accuracy.": _deep,
    "A larger error costs more.": _larger,
    "An error in all experts of a layer costs more than one in its most used expert.": _all_experts,
    "The format of an answer suffers before its content.": _format,
    "At 80 % in the most used experts of ten layers there is no valid output.": _silent,
    "The second data set has the same order of depths.": _second_set,
    "A few experts are used far more than most.": _uneven,
}
"""What the paper says, and what it comes to here."""


def takeaways_table(entries: Sequence[Entry], results: Results, trace: Trace) -> pd.DataFrame:
    """A row for each comparison, with the verdicts that `judged` gives.

    Args:
        entries: of all parts.
        results: the runs; a comparison whose runs are not there is left out.
        trace: of the model as it is.
    """
    cells = Cells(entries, results)
    evidence = pd.DataFrame(
        [
            {
                "number": number,
                "takeaway": says,
                "part": one.part,
                "level": one.level,
                "group": one.group or one.compared,
                "compared": one.compared,
                "claim": one.claim,
                "found": one.found.mean,
                "low": one.found.low,
                "high": one.found.high,
            }
            for number, (says, make) in enumerate(TAKEAWAYS.items(), 1)
            for one in make(cells, trace)
        ]
    )
    return judged(evidence)
