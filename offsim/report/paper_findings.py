"""What a paper study found and what is missing of it, in sentences computed from its tables."""

from collections.abc import Iterator

import pandas as pd

from offsim.report.paper_data import PaperData
from offsim.report.text import number
from offsim.study.paper.uneven import UNIFORM
from offsim.study.paper.verdicts import joined

VERDICTS = ("holds", "does not hold", "cannot be told")
ENOUGH_ITEMS, ENOUGH_SEEDS = 1000, 5
"""Below which a study is a quick look."""


def answer(data: PaperData) -> list[tuple[int, str]]:
    """For each takeaway of the paper its number, the verdict, and in how many comparisons."""
    sentences = []
    for (count, says), found in data.takeaways.groupby(["number", "takeaway"], sort=True):
        counts = joined(found)["together"].value_counts()
        total = int(counts.sum())
        holds, fails, open_ = (int(counts.get(one, 0)) for one in VERDICTS)
        of = "the one comparison" if total == 1 else f"{total} comparisons"
        if holds == total:
            text = f"It holds in {of}."
        elif fails == total:
            text = f"It does not hold in {of}."
        elif open_ == total:
            text = f"It cannot be told from {of}."
        else:
            text = (
                f"Of {of} it holds in {holds}, does not in {fails}, and in {open_} it cannot be "
                "told."
            )
        verdict = str(found["overall"].iloc[0]).capitalize()
        sentences.append((int(str(count)), f"“{says}” {verdict} at the paper's levels. {text}"))
    return sentences


def beyond(data: PaperData) -> list[str]:
    """What errors of several kinds and places come to, in sentences."""
    return [*_sources(data), *_halves(data), *_uneven(data)]


def missing(data: PaperData) -> list[str]:
    """What is not there yet, in sentences."""
    left = [
        name
        for name, part in data.summary["parts"].items()
        if part["measured"] < part["cells"] or not part["cells"]
    ]
    found = []
    if left:
        found.append(
            f"Not all cells are measured of the parts {', '.join(left)}: call offsim study paper "
            "again with this folder, and it goes on there."
        )
    plan, items = data.summary["plan"], data.summary["items"]
    if plan["seeds"] < ENOUGH_SEEDS or items["mixed"] < ENOUGH_ITEMS:
        found.append(
            f"This is a quick look: fewer than {ENOUGH_ITEMS:,} items or {ENOUGH_SEEDS} seeds a "
            "cell, so that most intervals are wide."
        )
    return found


def _sources(data: PaperData) -> Iterator[str]:
    rows = data.comparisons[data.comparisons["part"] == "codecs"]
    bound, size = (rows[rows["how"] == how] for how in ("equal bound", "equal size"))
    if text := _times(_pair(bound, "normal", "uniform"), inverse=True):
        yield f"At an equal bound, Normal noise in all experts diverges {text} as uniform noise."
    for codec in ("cuszp", "sz3"):
        if text := _times(_pair(bound, "uniform", codec)):
            yield f"At an equal bound, {codec} diverges {text} as uniform noise."
    own = _pair(size, "cuszp", "sz3")
    if text := _times(own):
        yield f"At an equal size, sz3 diverges {text} as cuszp."
    for quantiser in ("rtn-int8", "rtn-int4"):
        for codec in ("cuszp", "sz3"):
            if text := _times(_pair(size, quantiser, codec)):
                yield f"At the size of {quantiser}, {codec} diverges {text} as it."


def _halves(data: PaperData) -> Iterator[str]:
    for part, what in (("matrices", "the {} matrices"), ("experts", "the {} of the experts")):
        rows = data.part(part)
        if not len(rows):
            continue
        level = rows["level"].max()
        lost = {
            str(row["place"]): f"{-100 * row['ica_change']:.1f} points"
            for row in rows[rows["level"] == level].to_dict("records")
        }
        named = "; ".join(f"in {what.format(place)} {text}" for place, text in lost.items())
        yield f"Uniform noise of {level:g} sigma costs, {named} of ICA."


def _uneven(data: PaperData) -> Iterator[str]:
    rows = data.comparisons[data.comparisons["part"] == "uneven"]
    for name in rows["second"].unique():
        if text := _times(_pair(rows, UNIFORM, name)):
            yield f"At an equal size, {name} diverges {text} as one bound for all."


def _pair(rows: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    return rows[(rows["first"] == first) & (rows["second"] == second)]


def _times(rows: pd.DataFrame, *, inverse: bool = False) -> str:
    """How many times as far the second of a pair diverges as the first; empty for no pair."""
    ratios = (rows["kl_second"] / rows["kl_first"])[rows["kl_first"] > 0]
    if not len(ratios):
        return ""
    if inverse:
        ratios = 1 / ratios
    low, high = number(float(ratios.min()), 2), number(float(ratios.max()), 2)
    return f"{low} times as far (KL)" if low == high else f"{low} to {high} times as far (KL)"
