"""The `offsim` command: its subcommands and how it ends."""

import sys

import typer

from offsim import __version__
from offsim.cli import (
    bounds,
    breakeven,
    calibrate,
    capacity,
    check,
    codecs,
    compress,
    curve,
    doctor,
    evaluate,
    explain,
    fidelity,
    model,
    optimize,
    profile,
    replay,
    report,
    results,
    run,
    selftest,
    sensitivity,
    serve,
    simulate,
    study,
    sweep,
    trace,
)
from offsim.errors import OffsimError

INTERRUPTED = 130

app = typer.Typer(
    name="offsim",
    help="What an MoE model costs and loses when its experts are offloaded under an error bound.",
    epilog="Example: offsim study --out out",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study.app, name="study")
app.command("calibrate")(calibrate.calibrate)
trace.app.command("replay")(replay.replay)
trace.app.command("curve")(curve.curve)
app.add_typer(trace.app, name="trace")
app.add_typer(codecs.app, name="codecs")
app.add_typer(bounds.app, name="bounds")
app.add_typer(profile.app, name="profile")
app.command("model")(model.model)
app.command("simulate")(simulate.simulate)
app.command("serve")(serve.serve)
app.command("capacity")(capacity.capacity)
app.command("explain")(explain.explain)
app.command("breakeven")(breakeven.breakeven)
app.command("sweep")(sweep.sweep)
app.command("results")(results.results)
app.command("optimize")(optimize.optimize)
app.command("run")(run.run)
app.command("evaluate")(evaluate.evaluate)
app.command("check")(check.check)
app.command("fidelity")(fidelity.fidelity)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("compress")(compress.compress)
app.command("verify")(compress.verify)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("selftest")(selftest.selftest)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offsim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; bad input is one sentence on stderr and exit code 2."""
    try:
        app()
    except OffsimError as error:
        typer.echo(f"offsim: {error}", err=True)
        sys.exit(2)
    except SystemExit as stopped:  # typer turns Ctrl-C into this exit code
        if stopped.code == INTERRUPTED:
            typer.echo("offsim: stopped; nothing was left half-written", err=True)
        raise
