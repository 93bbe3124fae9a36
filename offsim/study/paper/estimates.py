"""Tables of a study: what each cell changes, over all items and task by task."""

import math
from collections.abc import Sequence

import pandas as pd

from offsim.accuracy import Difference, holm, mcnemar
from offsim.accuracy.comparison import detectable
from offsim.study.paper.design import Entry
from offsim.study.paper.numbers import BASELINES, PUBLISHED, Published
from offsim.study.paper.plan import QUESTIONS
from offsim.study.paper.results import Results
from offsim.study.paper.sizes import Sizes

NOT_READ = Difference(math.nan, math.nan, math.nan, 0, 0)
DIGITS = 6
"""Significant digits in a table."""


def cells_table(entries: Sequence[Entry], results: Results, sizes: Sizes | None) -> pd.DataFrame:
    """A row for each entry whose runs are all there.

    Args:
        entries: of all parts.
        results: the runs.
        sizes: what codecs make of the model, if it was measured.

    Returns:
        Shares and their changes 0..1, divergence in nats a token, bits a weight with their label,
        p of McNemar's test of ICA, as it is and corrected by Holm over the part. All but bits that
        are ESTIMATED and what the paper prints is MEASURED.
    """
    rows = [
        {
            "part": entry.part,
            "place": entry.place,
            "source": entry.source,
            "how": entry.how,
            "level": entry.level,
            "unit": entry.unit,
            "questions": entry.cell.questions,
            "scope": str(entry.cell.error.scope),
            "bound": entry.cell.bound_text,
            **_measured(entry, results),
            **_sized(entry, sizes),
            **_published(entry),
        }
        for entry in entries
        if results.has(entry.cell)
    ]
    table = pd.DataFrame(rows)
    if len(table):
        corrected = table.groupby("part")["p"].transform(
            lambda p: pd.Series(holm(p.to_numpy(float)), p.index)
        )
        table.insert(list(table.columns).index("p") + 1, "p_holm", corrected)
    return table


def tasks_table(entries: Sequence[Entry], results: Results) -> pd.DataFrame:
    """A row for each entry and task: ICA, 0..1, and its change with the interval."""
    rows = []
    for entry in entries:
        if not results.has(entry.cell):
            continue
        for task in QUESTIONS[entry.cell.questions]:
            items = results.items(entry.cell.questions, task)
            rows.append(
                {
                    "part": entry.part,
                    "place": entry.place,
                    "source": entry.source,
                    "how": entry.how,
                    "level": entry.level,
                    "task": task,
                    "ica": _short(float(results.after(entry.cell, "ica")[:, items].mean())),
                    **_interval("ica_change", results.change(entry.cell, "ica", task)),
                }
            )
    return pd.DataFrame(rows)


def base_table(results: Results, asked: Sequence[str]) -> pd.DataFrame:
    """ICA and PIA of the model as it is, 0..1, by set of questions and task."""
    rows = []
    for questions in asked:
        for task in (None, *QUESTIONS[questions]):
            items = results.items(questions, task)
            found = {
                score: results.before(questions, score)[items].mean() for score in ("ica", "pia")
            }
            named = {"questions": questions, "task": task or "all"}
            rows.append({**named, **{score: _short(float(v)) for score, v in found.items()}})
    return pd.DataFrame(rows)


def _measured(entry: Entry, results: Results) -> dict[str, object]:
    cell = entry.cell
    test = mcnemar(results.before(cell.questions, "ica"), results.after(cell, "ica"))
    found: dict[str, object] = {}
    for score in ("ica", "pia"):
        found[f"{score}_before"] = _short(float(results.before(cell.questions, score).mean()))
        found[score] = _short(float(results.after(cell, score).mean()))
        found |= _interval(f"{score}_change", results.change(cell, score))
    known = cell.questions == "mixed"  # the texts are read under these errors alone
    found |= _interval("kl", results.change(cell, "kl") if known else NOT_READ)
    items = results.after(cell, "ica").shape[1]
    return {
        "items": items,
        "seeds": len(results.runs(cell)),
        **found,
        "p": _short(test.p),
        "detectable": _short(detectable(items, test.discordance)),
        "seconds": _short(sum(run.seconds for run in results.runs(cell))),
    }


def _sized(entry: Entry, sizes: Sizes | None) -> dict[str, object]:
    """Bits a weight where the size of this error is known: all experts."""
    if entry.bits is not None:
        return {"bits": _short(entry.bits), "bits_label": "MEASURED"}
    point = None
    if entry.part == "codecs" and sizes is not None:
        bound = entry.cell.error.bound
        point = sizes.point(entry.source, None if bound is None else bound.value)
    if point is None or sizes is None:
        return {"bits": None, "bits_label": ""}
    return {"bits": _short(sizes.bits(point)), "bits_label": point.label}


def _published(entry: Entry) -> dict[str, object]:
    nothing = Published(None, None)
    base = BASELINES.get(entry.part, nothing)
    there = PUBLISHED.get((entry.part, entry.place, entry.level), nothing)
    return {
        "paper_ica_before": base.ica,
        "paper_pia_before": base.pia,
        "paper_ica": there.ica,
        "paper_pia": there.pia,
        "paper_note": there.note,
    }


def _interval(name: str, found: Difference) -> dict[str, float]:
    ends = {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    return {key: _short(value) for key, value in ends.items()}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
