"""Tables of the paper study's page: cells of text made of its numbers."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from offsim.report.paper_data import PaperData
from offsim.report.paper_findings import VERDICTS
from offsim.report.tables import Cell, Table
from offsim.report.text import NOTHING, number
from offsim.study.paper.design import TITLES
from offsim.study.paper.numbers import BASELINES
from offsim.study.paper.tolerance import LOST
from offsim.study.paper.verdicts import MEANINGS, PAPERS, joined

Row = Mapping[Hashable, object]
FEW = "too few items"
"""Where not even a change of all items could be told from chance."""


def paper_table(data: PaperData, part: str) -> Table:
    """A table of the paper beside its numbers; a change that is certain is marked.

    Certain is what McNemar's test finds at 5 % after Holm's correction over the table.
    """
    rows = []
    for row in data.part(part).to_dict("records"):
        certain = float(row["p_holm"]) < 0.05
        rows.append(
            [
                Cell(str(row["place"])),
                Cell(_level(row)),
                Cell(_share(row["ica"])),
                Cell(_change(row, "ica_change"), marked=certain),
                Cell(_share(row["pia"])),
                Cell(_kl(row)),
                Cell(_points(row["detectable"])),
                Cell(_theirs(row)),
                Cell(_their_change(row)),
            ]
        )
    head = [
        "where in the paper",
        "level",
        "ICA, %",
        "change, points",
        "PIA, %",
        "KL, nats a token",
        "detectable, points",
        "the paper: ICA / PIA, %",
        "and change of ICA, points",
    ]
    found = data.part(part)
    base = found["ica_before"].iloc[0] if len(found) else math.nan
    theirs = BASELINES[part]
    caption = (
        f"{TITLES[part]}. Without an error ICA is {_share(base)} % here and "
        f"{100 * (theirs.ica or 0):.0f} % in the paper"
        f"{f' ({theirs.note})' if theirs.note else ''}"
    )
    return Table(caption, ("MEASURED",), head, rows, words=2)


def takeaways_table(data: PaperData) -> Table:
    """The verdict on each takeaway of the paper, and in how many comparisons it holds here."""
    rows = []
    for (_, says), found in data.takeaways.groupby(["number", "takeaway"], sort=True):
        groups = joined(found)
        counts = groups["together"].value_counts()
        rows.append(
            [
                Cell(str(says)),
                Cell(MEANINGS[found["claim"].iloc[0]]),
                Cell(
                    str(found["overall"].iloc[0]),
                    marked=found["overall"].iloc[0] == "does not hold",
                ),
                *(
                    Cell(
                        str(int(counts.get(one, 0))),
                        marked=one == "does not hold" and one in counts,
                    )
                    for one in VERDICTS
                ),
            ]
        )
    head = ["takeaway of the paper", "holds where", "verdict", *VERDICTS]
    caption = (
        "The paper's takeaways: in how many comparisons each holds, at every level and scope that "
        f"it has and above. The verdict is by levels up to {PAPERS:.0%}, the paper's own: holds "
        "where more than half of the comparisons do and none does not, does not hold the other way "
        "round, else it cannot be told"
    )
    return Table(caption, ("MEASURED",), head, rows, words=3)


def evidence_table(data: PaperData) -> Table:
    """Every comparison behind a takeaway."""
    rows = []
    for row in data.takeaways.to_dict("records"):
        ratio = row["claim"] == "above"
        values = [float(row[name]) for name in ("found", "low", "high")]
        text = (
            "{:.2f} [{:.2f}, {:.2f}]".format(*values)
            if ratio
            else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in values))
        )
        level = "" if pd.isna(row["level"]) else f"{row['level']:.0%}"
        part = row["part"] if row["part"] == "usage" else f"table {row['part']}"
        rows.append(
            [
                Cell(f"{row['number']}"),
                Cell(str(part)),
                Cell(str(row["compared"])),
                Cell(level),
                Cell(str(row["verdict"]), marked=row["verdict"] == "does not hold"),
                Cell(text),
            ]
        )
    head = ["takeaway", "scope", "compared", "level", "verdict", "difference of ICA, points"]
    caption = "Every comparison (of takeaway 7, ICA itself in %; of 9, a ratio of activations)"
    return Table(caption, ("MEASURED",), head, rows, words=5)


def comparisons_table(data: PaperData, parts: tuple[str, ...], caption: str) -> Table:
    """Pairs of errors: which does more harm; marked where an interval leaves out zero."""
    rows = []
    chosen = data.comparisons[data.comparisons["part"].isin(parts)]
    for row in chosen.to_dict("records"):
        certain = row["kl_low"] > 0 or row["kl_high"] < 0
        apart = [100 * float(row[f"ica_{end}"]) for end in ("apart", "low", "high")]
        sure = apart[1] > 0 or apart[2] < 0
        ratio = float(row["kl_second"]) / float(row["kl_first"]) if row["kl_first"] else math.nan
        where = " ".join(t for t in (str(row["how"]), str(row["place"])) if t and t != "all")
        rows.append(
            [
                Cell(f"{row['second']} against {row['first']}"),
                Cell(where),
                Cell(_level(row)),
                Cell("{:+.1f} [{:+.1f}, {:+.1f}]".format(*apart), marked=sure),
                Cell(f"{number(ratio, 2)} times", marked=certain),
                Cell(_kl_apart(row), marked=certain),
            ]
        )
    head = ["errors", "where", "level", "difference of ICA, points", "KL", "difference of KL, nats"]
    caption = (
        f"{caption}. Marked where the interval leaves out zero; of 95 % each, and not corrected "
        f"for the number of these {len(rows)} pairs"
    )
    return Table(caption, ("MEASURED",), head, rows, words=3)


def uneven_table(data: PaperData) -> Table:
    """Two bounds of the size of one."""
    rows = [
        [
            Cell(str(row["place"])),
            Cell(_level(row)),
            Cell(str(row["bound"])),
            Cell(_bits(row)),
            Cell(_share(row["ica"])),
            Cell(_change(row, "ica_change")),
            Cell(_kl(row)),
        ]
        for row in data.part("uneven").to_dict("records")
    ]
    head = ["bounds", "size of", "bound", "bits a weight", "ICA, %", "change, points", "KL"]
    caption = (
        "Two bounds of the size of one, in all experts, by cuszp: a tight one of 0.71 times that "
        "one, and a loose one at which all blobs together are as large"
    )
    return Table(caption, ("MEASURED",), head, rows, words=3)


def sources_table(data: PaperData) -> Table:
    """Every source of errors in all experts, with its size."""
    rows = [
        [
            Cell(str(row["source"])),
            Cell(how),
            Cell(_level(row)),
            Cell(str(row["bound"]) if isinstance(row["bound"], str) else "none"),
            Cell(_bits(row)),
            Cell(_share(row["ica"])),
            Cell(_change(row, "ica_change")),
            Cell(_kl(row)),
        ]
        for how in ("equal bound", "equal size")
        for row in data.part("codecs", how).to_dict("records")
    ]
    head = [
        "source",
        "held equal",
        "level",
        "bound",
        "bits a weight",
        "ICA, %",
        "change, points",
        "KL",
    ]
    caption = (
        "Noise and codecs in all experts of all layers. Bits are payload bytes of real blobs, "
        "MEASURED; uniform noise has those of an ideal code under its bound, the entropy of a "
        "uniform quantiser, ESTIMATED; Normal noise is no code and has none"
    )
    return Table(caption, ("MEASURED", "ESTIMATED"), head, rows, words=4)


def tolerance_table(data: PaperData) -> Table:
    """Bounds that each task tolerates, by layer."""
    found = data.tolerance
    layers = sorted(found["layer"].unique(), key=int)
    rows = []
    for task, own in found.groupby("task", sort=False):
        by_layer = {str(row["layer"]): row for row in own.to_dict("records")}
        rows.append([Cell(str(task)), *(_tolerated(by_layer.get(str(layer))) for layer in layers)])
    head = ["task", *(f"layer {layer}" for layer in layers)]
    caption = (
        f"Largest bound (sigma) of which the interval says that it costs a task less than "
        f"{100 * LOST:g} points, and in brackets the smallest one of which it says more; intervals "
        f"of 95 % each, not corrected for the number of tasks, layers and bounds"
    )
    return Table(caption, ("MEASURED",), head, rows)


def usage_table(data: PaperData) -> Table:
    """How unevenly each layer uses its experts."""
    rows = [
        [
            Cell(f"{row['layer']}"),
            *(Cell(number(float(row[name]), 3)) for name in ("imbalance", "utilisation")),
            *(Cell(number(float(row[name]), 3)) for name in ("entropy", "gini")),
        ]
        for row in data.usage.to_dict("records")
    ]
    head = ["layer", "imbalance", "utilisation", "normalised entropy", "Gini"]
    caption = (
        "Use of the experts: most used over mean, share used at all, entropy over that of an even "
        "use, Gini coefficient of the activations"
    )
    return Table(caption, ("MEASURED",), head, rows)


def facts_table(data: PaperData) -> Table:
    """What was measured on what."""
    summary = data.summary
    plan, items = summary["plan"], summary["items"]
    facts = {
        "model": summary["model"],
        "its experts": f"{summary['layers']} layers of {summary['experts']}, "
        f"{summary['top_k']} a token",
        "items of the first set": f"{items['mixed']} ({plan['mixed']} a task)",
        "items of the second set": f"{items['chains']} ({plan['chains']} a task)",
        "noise seeds a cell": f"{plan['seeds']}",
        "texts for the divergence": f"{plan['sequences']} of {plan['length']} tokens",
        "processor": f"{summary['machine']['cpu']}, {summary['machine']['cores']} cores",
        "measured on": summary["machine"]["measured_on"],
        "offsim": summary["offsim"],
        **_calls(summary.get("calls", [])),
    }
    rows = [[Cell(name), Cell(str(value))] for name, value in facts.items()]
    return Table("Model, questions and machine", (), [], rows, words=2)


def _calls(calls: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Calls that came to their end, with their wall time from the start to the page."""
    return {
        f"call {at}, from its start to the page": f"{call['runs']} runs of the parts "
        f"{', '.join(call['parts'])} in {number(call['seconds'] / 60, 1)} minutes (MEASURED)"
        for at, call in enumerate(calls, 1)
        if call["seconds"] is not None
    }


def parts_table(data: PaperData) -> Table:
    """How much of each part is measured, and how long it took."""
    rows = [
        [
            Cell(f"{TITLES[name]}" if name in TITLES else name),
            Cell(f"{part['measured']} of {part['cells']}"),
            Cell(number(part["seconds"] / 60, 1)),
        ]
        for name, part in data.summary["parts"].items()
    ]
    head = ["part", "cells", "minutes of its runs"]
    return Table("What is measured (parts share cells)", ("MEASURED",), head, rows)


def _level(row: Row) -> str:
    level = float(str(row["level"]))
    if row["unit"] == "alpha":
        return f"{level:.0%}"
    return f"{level:.2f} bits" if row["unit"] == "bits" else f"{level:g} sigma"


def _bits(row: Row) -> str:
    bits = number(float(str(row["bits"])), 3)
    return f"{bits} (ESTIMATED)" if row["bits_label"] == "ESTIMATED" else bits


def _share(value: object) -> str:
    return NOTHING if pd.isna(value) else f"{100 * float(str(value)):.1f}"  # type: ignore[call-overload]


def _points(value: object) -> str:
    share = float(str(value))
    return f"{100 * share:.1f}" if math.isfinite(share) else FEW


def _change(row: Row, name: str) -> str:
    ends = (100 * float(str(row[f"{name}{end}"])) for end in ("", "_low", "_high"))
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*ends)


def _kl(row: Row) -> str:
    value = float(str(row["kl"]))
    return f"{value:.2g}" if math.isfinite(value) else NOTHING


def _kl_apart(row: Row) -> str:
    ends = (float(str(row[f"kl_{end}"])) for end in ("apart", "low", "high"))
    return "{:+.2g} [{:+.2g}, {:+.2g}]".format(*ends)


def _theirs(row: Row) -> str:
    note = str(row["paper_note"])
    shares = [
        "?" if pd.isna(row[f"paper_{score}"]) else f"{100 * float(str(row[f'paper_{score}'])):.0f}"  # type: ignore[call-overload]
        for score in ("ica", "pia")
    ]
    if shares == ["?", "?"]:
        return note or "not in the paper"
    return " / ".join(shares) + (f" ({note})" if note else "")


def _their_change(row: Row) -> str:
    if pd.isna(row["paper_ica"]):  # type: ignore[call-overload]
        return ""
    return f"{100 * (float(str(row['paper_ica'])) - float(str(row['paper_ica_before']))):+.0f}"


def _tolerated(row: Row | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    least, lost = float(str(row["tolerates"])), float(str(row["loses"]))
    known = f"{least:g}" if least else "none"
    return Cell(known + (f" ({lost:g})" if math.isfinite(lost) else ""))
