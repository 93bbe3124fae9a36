"""`offsim study`: the whole loop on the embedded model; `offsim study paper` is beside it."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options, paper

app = typer.Typer()
app.command("paper")(paper.paper)


@app.callback(invoke_without_command=True)
def study(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the report and every table.")] = Path("out"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer tokens, runs and items.")] = False,
    as_json: options.Json = False,
) -> None:
    """Calibrate, record, simulate, run, check, measure accuracy and report.

    On the embedded model, on this machine. Leaves report.html, summary.json and every table as CSV.

    Example: offsim study --out out
    """
    from offsim.errors import InputError
    from offsim.files import check_writable

    if context.invoked_subcommand is not None:
        if given := [name for name in context.params if _is_given(context, name)]:
            name = {"as_json": "json"}.get(given[0], given[0])
            raise InputError(
                f"--{name} stands before {context.invoked_subcommand}; write it after "
                f"{context.invoked_subcommand}"
            )
        return
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


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
