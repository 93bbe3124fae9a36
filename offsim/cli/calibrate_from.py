"""`offsim calibrate --from-run`: a calibration from the log of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display
from offsim.cli.logged import PANEL, CentreName, LoggedRun

OPTION = "--from-run"


@dataclass(frozen=True)
class CalibratedRun(LoggedRun):
    """The log of a run that a calibration is fitted on."""

    log_file: Annotated[
        Path | None,
        typer.Option(
            OPTION,
            help="Log of a run (CSV, docs/formats.md): fit on it, in place of measuring this "
            "machine. --trace is what its router chose.",
            rich_help_panel=PANEL,
        ),
    ] = None


def calibrate_from(
    given: CalibratedRun, path: Path, trace: Path, out: Path, *, as_json: bool
) -> None:
    """Fit a calibration on all tokens of a log and write it.

    Args:
        given: options.
        path: of the log.
        trace: file of the router's decisions in that run.
        out: calibration file.
        as_json: whether to print it as JSON.

    Raises:
        InputError: something of it cannot be used.
    """
    engine = given.engine()
    from offsim.files import write_yaml
    from offsim.study.measured import fit_all, model_of
    from offsim.trace import load_trace

    loaded, log = load_trace(trace), given.log(path)
    model = model_of(loaded, given.expert_bytes)
    centre = given.centre or CentreName.TYPICAL
    fitted = fit_all(log, loaded, engine, model=model, centre=centre.value)
    write_yaml(out, fitted.calibration)
    if as_json:
        display.emit_json(fitted.calibration.model_dump(mode="json"))
    else:
        typer.echo(f"{path.name}, {engine}: {fitted} [MEASURED]")
        typer.echo(f"calibration: {out}")
