"""`offsim results`: what a sweep found, as a table, a file, or beside another sweep."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options

SHOWN = ("tpot_s", "ttft_s", "tokens_per_s", "hit_rate", "label")
"""Columns that are listed where nothing is said, beside the fields that differ."""


def results(
    file: Annotated[Path, typer.Argument(help="File of `offsim sweep`.")],
    where: Annotated[
        list[str] | None,
        typer.Option(
            help='Condition on fields, such as "tpot_s < 0.01 and policy.slots <= 4"; as often '
            "as wanted."
        ),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(help="Field to sort by; -FIELD for the largest first; as often as wanted."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows that are listed, at most.", min=1)] = 20,
    as_json: options.Json = False,
) -> None:
    """List what a sweep found.

    Example: offsim results sweep.sqlite --where "policy.slots <= 4" --sort tpot_s
    """
    from offsim.study.sweep.database import reading
    from offsim.study.sweep.query import differing, rows

    with reading(file) as sql:
        table = rows(sql, where or (), sort or ())
    columns = ["number", *differing(table), *SHOWN]
    if table["error"].notna().any():
        columns.append("error")
    display.show_table(f"{file.name}: {len(table):,} scenarios", table[columns].head(limit))
