"""`offsim doctor`: what works on this machine, what does not, and what to install."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options
from offsim.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from offsim.cli.probes.base import Row, State

VERSION = 1
"""Of the JSON."""
COLOURS: "dict[State, str]" = {
    "works": "green",
    "missing": "yellow",
    "FAILS": "bold red",
    "fact": "",
}


def doctor(
    disk: Annotated[
        Path | None,
        typer.Option(help="Folder for blobs on disk; by default that of temporary files."),
    ] = None,
    need: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with 2 unless this row works, such as `device cuda`; may be given again."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say what works on this machine, what does not, and what to do about it.

    What can be tried is tried, in a few seconds; docs/doctor.md explains each row. The exit code is
    0 whatever is found, unless --need says otherwise.

    Example: offsim doctor
    """
    from offsim.cli.probes.base import examine
    from offsim.cli.probes.registry import groups

    with display.progress(quiet=as_json) as tell:
        rows = examine(groups(disk), tell)
    if as_json:
        display.emit_json({"version": VERSION, "rows": [_as_json(row) for row in rows]})
    else:
        _show(rows)
    for name in need or ():
        _require(name, rows)


def _as_json(row: "Row") -> dict[str, Any]:
    return {
        "group": row.group,
        "what": row.what,
        "state": row.found.state,
        "here": row.found.here,
        "remedy": row.found.remedy,
        "seconds": round(row.seconds, 4),
    }


def _show(rows: "Sequence[Row]") -> None:
    """Print a table with a line a group, and how many rows are how."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(title="This installation", title_justify="left", header_style="bold")
    table.add_column("what")
    table.add_column("here")
    table.add_column("what to do")
    last = ""
    for row in rows:
        if row.group != last:
            table.add_section()
            table.add_row(f"[bold]{escape(row.group)}[/bold]", "", "")
            last = row.group
        here = Text(str(row.found), COLOURS[row.found.state])
        table.add_row(escape(row.what), here, escape(row.found.remedy))
    display.OUT.print(table)
    typer.echo(_summary(rows))


def _summary(rows: "Iterable[Row]") -> str:
    states = [row.found.state for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in COLOURS)
    return f"{counts}; docs/doctor.md explains each row"


def _require(name: str, rows: "Sequence[Row]") -> None:
    """Look whether a row works.

    Raises:
        InputError: it does not, or there is no such row.
    """
    row = next((row for row in rows if row.what == name), None)
    if row is None:
        raise InputError(
            f"--need {name}: no row is called so; there are {', '.join(row.what for row in rows)}"
        )
    if row.found.state != "works":
        remedy = f"; {row.found.remedy}" if row.found.remedy else ""
        raise InputError(f"--need {name}: {row.found}{remedy}")
