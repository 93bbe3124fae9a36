"""`offsim report`: the page of a study, a paper study, a sensitivity or a proof."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder that `offsim study`, `study paper`, `sensitivity` or `optimize --prove` "
            "left."
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Write report.html and its figures from what a study left in its folder.

    Example: offsim report out
    """
    from offsim.report import write_report
    from offsim.report.decision import PROOF, write_decision
    from offsim.report.paper import write_paper_report
    from offsim.report.sensitivity_page import SENSITIVITY, write_sensitivity_report
    from offsim.study.paper.study import SUMMARY

    write = write_report
    for name, one in (
        (SUMMARY, write_paper_report),
        (SENSITIVITY, write_sensitivity_report),
        (PROOF, write_decision),
    ):
        if (folder / name).is_file():
            write = one
    page = write(folder)
    if as_json:
        display.emit_json({"report": str(page)})
    else:
        typer.echo(f"report: {page}")
