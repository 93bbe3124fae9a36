"""`offsim report`: the page of a study."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options


def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `offsim study` left.")],
    as_json: options.Json = False,
) -> None:
    """Write report.html and its figures from the tables of a study.

    Example: offsim report out
    """
    from offsim.report import write_report

    page = write_report(folder)
    if as_json:
        display.emit_json({"report": str(page)})
    else:
        typer.echo(f"report: {page}")
