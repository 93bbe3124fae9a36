"""How numbers and policies are written in the report, in tables and in figures alike."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from offsim.policy.bounds import Form

NOTHING = "n/a"
"""Shown for what is not defined, such as the TPOT of requests of one token."""
_RAISED = str.maketrans("-.0123456789", "⁻·⁰¹²³⁴⁵⁶⁷⁸⁹")
SAME_BOUND = 1e-6
"""Relative difference of bounds that are typed with six digits."""
_KNOWN = ("codec", "bound", "slots", "link_MB_per_s")

Row = Mapping[Hashable, Any]
"""A row of a table, by column."""


def bound_text(bound: float) -> str:
    """An absolute error bound: below 1 a power of two in halves, as 2⁻⁷ or 2⁻⁴·⁵; else `%g`."""
    if not 0 < bound < 1:
        return f"{bound:g}"
    exponent = round(2 * math.log2(bound)) / 2
    if not math.isclose(bound, 2.0**exponent, rel_tol=SAME_BOUND):
        return f"{bound:g}"
    return "2" + f"{exponent:g}".translate(_RAISED)


def storage_text(codec: str, bound: float) -> str:
    """A codec and its bound, such as `cuszp 2⁻⁷`; a lossless one has no bound."""
    return f"{codec} {bound_text(bound)}" if bound else codec


def form_text(form: Form) -> str:
    """How a matrix is stored, such as `2⁻⁷`, `sz3 2⁻⁷` or `rtn-int4`."""
    bound = "" if form.bound is None else bound_text(form.bound.value)
    return " ".join(filter(None, (form.codec, bound)))


def form_order(form: Form) -> tuple[str, float]:
    """By which forms are told: the policy's own codec first, each codec from its tightest bound."""
    return form.codec or "", 0.0 if form.bound is None else form.bound.value


def percent(fraction: float, signed: bool = False) -> str:
    """A fraction as percent with one decimal."""
    if not math.isfinite(fraction):
        return NOTHING
    return f"{100 * fraction:+.1f} %" if signed else f"{100 * fraction:.1f} %"


def milliseconds(seconds: float, decimals: int = 2) -> str:
    """Seconds as ms without the unit, which the column or the sentence gives."""
    return number(1e3 * seconds, decimals)


def number(value: float, decimals: int) -> str:
    """A number with so many decimals."""
    return f"{value:,.{decimals}f}" if math.isfinite(value) else NOTHING


def megabytes(value: float) -> str:
    """MB/s with three digits, without the unit."""
    return number(value, 1 if abs(value) < 100 else 0)


def policies(check: pd.DataFrame) -> list[str]:
    """The policy of each row of check.csv in words, such as `cuszp 2⁻⁷, 4 slots`.

    A member of the policy besides codec, bound and slots is named where it differs between rows.
    """
    members = [str(c) for c in check.columns[: list(check.columns).index("link_MB_per_s")]]
    differing = [m for m in members if m not in _KNOWN and check[m].nunique(dropna=False) > 1]
    return [_policy(row, differing) for row in check.to_dict("records")]


def _policy(row: Row, differing: list[str]) -> str:
    slots = int(row["slots"])
    parts = [storage_text(row["codec"], row["bound"]), f"{slots} slot{'' if slots == 1 else 's'}"]
    # Text says what it is (`lru`); a number alone would not (`depth 2`).
    parts += [str(row[m]) if isinstance(row[m], str) else f"{m} {row[m]}" for m in differing]
    return ", ".join(parts)


def link_text(megabytes_per_s: float) -> str:
    """A link speed, such as `62 MB/s`."""
    return f"{megabytes(megabytes_per_s)} MB/s"
