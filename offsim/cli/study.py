"""`offsim study`: the whole loop on the embedded model."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options


def study(
    out: Annotated[Path, typer.Option(help="Folder for the report and every table.")] = Path("out"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer tokens, runs and items.")] = False,
    as_json: options.Json = False,
) -> None:
    """Calibrate, record, simulate, run, check, measure accuracy and report.

    On the embedded model, on this machine. Leaves report.html, summary.json and every table as CSV.

    Example: offsim study --out out
    """
    from offsim.files import check_writable

    check_writable(out)
    with display.progress() as tell:
        tell("starting", 0.0)
        from offsim.report import write_report
        from offsim.study.plan import FULL_PLAN, QUICK_PLAN
        from offsim.study.study import study as run_study

        facts = run_study(out, QUICK_PLAN if quick else FULL_PLAN, tell)
        tell("writing the report", 1.0)
        page = write_report(out)
    if as_json:
        display.emit_json(facts)
        return
    import pandas as pd

    from offsim.cli.check import show_comparison

    show_comparison(pd.read_csv(out / "check.csv"), facts)
    typer.echo(f"report: {page}")
