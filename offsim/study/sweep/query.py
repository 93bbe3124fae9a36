"""Questions to the file of a sweep: conditions and orders in the names of its fields, as SQL."""

import ast
import json
import sqlite3
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.study.sweep.database import COLUMNS
from offsim.study.sweep.scenario import HARDWARE, Workload

CONFIG = "config"
OPERATORS = {
    ast.Eq: "IS",  # two that are null are equal
    ast.NotEq: "IS NOT",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
USUAL = ("tpot_s", "ttft_s", "tokens_per_s", "hit_rate")
"""Metrics that are listed and compared where nothing is said."""
LARGEST = 1 << 63
"""From which whole numbers on SQLite has none."""
EXAMPLE = "such as \"tpot_s < 0.01 and policy.cache == 'lru'\""


@dataclass
class _Sql:
    """A piece of SQL and the values that its question marks stand for."""

    text: str
    values: list[Any] = field(default_factory=list)


def rows(
    sql: sqlite3.Connection,
    where: Sequence[str] = (),
    sort: Sequence[str] = (),
) -> pd.DataFrame:
    """Scenarios of a sweep, a row each: the columns of the file, and each field of the config.

    Args:
        sql: of `offsim.study.sweep.database.reading`.
        where: conditions, of which all hold.
        sort: fields, the first one first; with `-` before it, the largest comes first. What has no
            value comes last. Equals are in the order of the file.

    Raises:
        InputError: a condition that is none, or a name that no field has.
    """
    asked = [_condition(text) for text in where]
    order = [_order(text) for text in sort]
    text = "SELECT * FROM scenarios"
    if asked:
        text += " WHERE " + " AND ".join(f"({one.text})" for one in asked)
    text += " ORDER BY " + ", ".join([*(one.text for one in order), "number"])
    values = [value for one in (*asked, *order) for value in one.values]
    return _flat(pd.read_sql_query(text, sql, params=values))


def check_fields(names: Iterable[str]) -> None:
    """Refuse a name that no field of a scenario has.

    Raises:
        InputError: there is one.
    """
    for name in names:
        _field(name)


def field_names(table: pd.DataFrame) -> list[str]:
    """The columns of `rows` that are fields of scenarios."""
    return [name for name in table.columns if name not in COLUMNS]


def differing(table: pd.DataFrame) -> list[str]:
    """The fields in which the scenarios of a table are not all alike."""
    return [n for n in field_names(table) if table[n].nunique(dropna=False) > 1]


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column for each field of its configs."""
    configs = [_leaves(json.loads(text)) for text in table[CONFIG]]
    names = list(dict.fromkeys(name for one in configs for name in one))
    values = {n: pd.Series([one.get(n) for one in configs], table.index, object) for n in names}
    fields = pd.DataFrame(values, table.index).infer_objects()
    return pd.concat(
        [table, fields.astype({n: object for n in names if fields[n].isna().all()})], axis=1
    )


def _leaves(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= _leaves(inner, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = json.dumps(inner) if isinstance(inner, list) else inner
    return found


def _order(text: str) -> _Sql:
    named = _field(text.removeprefix("-"))
    way = "DESC" if text.startswith("-") else "ASC"
    return _Sql(f"{named.text} {way} NULLS LAST", named.values)


def _condition(text: str) -> _Sql:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's own compiler, about 1or and such
            return _translated(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"--where {text!r} is not a condition, {EXAMPLE}") from error


def _translated(tree: ast.expr, whole: str) -> _Sql:
    """Conditions of Python as SQL. Names become columns, values question marks, and no more."""
    match tree:
        case ast.BoolOp(op, values):
            word = " AND " if isinstance(op, ast.And) else " OR "
            parts = [_translated(one, whole) for one in values]
            return _Sql(
                word.join(f"({one.text})" for one in parts),
                [value for one in parts for value in one.values],
            )
        case ast.UnaryOp(ast.Not(), inner):
            part = _translated(inner, whole)
            return _Sql(f"NOT ({part.text})", part.values)
        case ast.Compare(left, [op], [right]) if type(op) in OPERATORS:
            a, b = _operand(left, whole), _operand(right, whole)
            return _Sql(f"{a.text} {OPERATORS[type(op)]} {b.text}", a.values + b.values)
        case ast.Compare(left, ops, rights) if len(ops) > 1:  # 1 < a < 2
            ends = [left, *rights]
            pairs = [ast.Compare(ends[at], [op], [ends[at + 1]]) for at, op in enumerate(ops)]
            return _translated(ast.BoolOp(ast.And(), list(pairs)), whole)
    raise InputError(f"--where {whole!r} is not a condition, {EXAMPLE}")


def _operand(tree: ast.expr, whole: str) -> _Sql:
    match tree:
        case ast.Constant(int() as value) if value >= LARGEST:
            return _Sql("?", [float(value)])
        case ast.Constant(str() | int() | float() | None as value):
            return _Sql("?", [value])
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float())):
            inner = _operand(tree.operand, whole)
            return _Sql("?", [-inner.values[0]])
        case ast.Name() | ast.Attribute():
            return _field(ast.unparse(tree))
    raise InputError(f"--where {whole!r} compares fields with numbers or texts, {EXAMPLE}")


def _field(name: str) -> _Sql:
    """A column, or a field of the config.

    Raises:
        InputError: no field has this name.
    """
    if name in COLUMNS and name != CONFIG:
        return _Sql(name)
    first, _, rest = name.partition(".")
    known = {"calibration", "link_bytes_per_s"}
    known |= {f"policy.{one}" for one in Policy.model_fields}
    known |= {f"workload.{one}" for one in Workload.model_fields}
    if first == HARDWARE and rest:
        return _Sql("json_extract(config, ?)", [f"$.{HARDWARE}.{json.dumps(rest)}"])
    if name in known or ".".join(name.split(".")[:2]) in known:
        return _Sql("json_extract(config, ?)", [f"$.{name}"])
    raise InputError(
        f"no scenario has a field {name!r}; there are status, error, {', '.join(USUAL)} "
        f"and all that docs/sweep.md names, such as {min(known)}"
    )
