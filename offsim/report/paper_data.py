"""What a paper study left in its folder, read and checked before anything is drawn of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.errors import EmptyDataError, ParserError

from offsim.errors import FormatError, InputError
from offsim.files import read_text
from offsim.study.paper.study import SUMMARY

REMEDY = "make the folder with `offsim study paper --out DIR`"
_CHANGES = ("ica_change", "ica_change_low", "ica_change_high")
COLUMNS: dict[str, tuple[str, ...]] = {
    "cells": (
        *("part", "place", "source", "how", "level", "unit", "items", "seeds"),
        *(
            "ica",
            "pia",
            *_CHANGES,
            "kl",
            "kl_low",
            "kl_high",
            "p_holm",
            "detectable",
            "bound",
            "bits",
            "bits_label",
        ),
        *("ica_before", "paper_ica", "paper_pia", "paper_ica_before", "paper_note"),
    ),
    "tasks": ("part", "place", "level", "task", *_CHANGES),
    "base": ("questions", "task", "ica", "pia"),
    "takeaways": (
        *("number", "takeaway", "part", "level", "group", "compared", "claim"),
        *("found", "low", "high", "verdict", "together", "overall"),
    ),
    "comparisons": (
        *("part", "place", "level", "unit", "how", "first", "second"),
        *("ica_apart", "ica_low", "ica_high"),
        *("kl_first", "kl_second", "kl_apart", "kl_low", "kl_high"),
    ),
    "tolerance": ("task", "layer", "tolerates", "loses"),
    "usage": ("layer", "imbalance", "utilisation", "entropy", "gini"),
}
"""Columns that the page uses, by table."""
TEXT = dict.fromkeys(("part", "place", "source", "how", "unit", "paper_note", "bits_label"), str)
FACTS = ("offsim", "model", "layers", "experts", "top_k", "plan", "items", "parts", "machine")


@dataclass(frozen=True, slots=True)
class PaperData:
    """A paper study.

    Attributes:
        summary: paper.json.
        cells: one row an entry of a table; shares 0..1, divergence in nats a token.
        tasks: the same by task.
        base: the model without an error.
        takeaways: one row a comparison.
        comparisons: pairs of errors.
        tolerance: one row a task and layer.
        usage: how each layer uses its experts.
    """

    summary: dict[str, Any]
    cells: pd.DataFrame
    tasks: pd.DataFrame
    base: pd.DataFrame
    takeaways: pd.DataFrame
    comparisons: pd.DataFrame
    tolerance: pd.DataFrame
    usage: pd.DataFrame

    def part(self, name: str, how: str = "") -> pd.DataFrame:
        """The cells of a part, in the order in which they were designed."""
        rows = self.cells[self.cells["part"] == name]
        return rows[rows["how"] == how]


def load_paper(folder: Path) -> PaperData:
    """Read a folder that `offsim study paper` wrote.

    Raises:
        InputError: a file is missing.
        FormatError: a file is not what such a study writes.
    """
    path = folder / SUMMARY
    try:
        summary = json.loads(read_text(path))
    except InputError as error:
        raise InputError(f"{error}; {REMEDY}") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}: cannot be parsed: {error}; {REMEDY}") from error
    if missing := [name for name in FACTS if name not in summary]:
        raise FormatError(f"{path}: it lacks {missing[0]}; {REMEDY}")
    return PaperData(summary, **{name: _table(folder, name) for name in COLUMNS})


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such table; {REMEDY}")
    try:
        table = pd.read_csv(path, dtype=TEXT, keep_default_na=True)
    except EmptyDataError:  # no run of its part is there yet
        return pd.DataFrame(columns=list(COLUMNS[name]))
    except (ParserError, ValueError) as error:
        raise FormatError(f"{path}: cannot be parsed: {error}; {REMEDY}") from error
    if missing := [column for column in COLUMNS[name] if column not in table.columns]:
        raise FormatError(f"{path}: it lacks the column {missing[0]}; {REMEDY}")
    for column in ("place", "how", "unit", "paper_note", "bits_label"):
        if column in table.columns:
            table[column] = table[column].fillna("")
    return table
