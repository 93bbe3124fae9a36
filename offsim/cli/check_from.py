"""`offsim check --from`: a prediction against what another engine measured."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display
from offsim.cli.logged import PANEL, CentreName, LoggedRun, SplitName, refuse_others

if TYPE_CHECKING:
    import pandas as pd

    from offsim.study.measured import Engine, HeldOut

OPTION = "--from"
NAMES = {
    "mean_s": "mean ms a token",
    "median_s": "median ms a token",
    "p95_s": "p95 ms a token",
    "tokens_per_s": "tokens/s",
    "compute_s": "compute, mean ms",
    "stall_s": "stall, mean ms",
    "mgmt_s": "managing loads, mean ms",
    "read_bytes": "MB read a token",
    "hit_rate": "hit rate, %",
    "hit_rate_so_far": "hit rate since the start, %",
    "wall_s": "whole token, ms",
}
RATES = ("hit_rate", "hit_rate_so_far")


@dataclass(frozen=True)
class FromRun(LoggedRun):
    """The log of a run, and what of it is fitted on."""

    log_file: Annotated[
        Path | None,
        typer.Option(
            OPTION,
            help="Log of a run (CSV, docs/formats.md): predict it, in place of running "
            "policies. --trace is what its router chose.",
            rich_help_panel=PANEL,
        ),
    ] = None
    fit: Annotated[
        SplitName | None,
        typer.Option(
            help="Tokens that the prediction is fitted on; the others are compared: the first "
            "half (default), or every other block of 8.",
            rich_help_panel=PANEL,
        ),
    ] = None
    figure: Annotated[
        Path | None,
        typer.Option(help="Also draw the tokens of the log into this PNG.", rich_help_panel=PANEL),
    ] = None


def check_from(
    given: FromRun, path: Path, trace: Path, out: Path, calibration: Path | None, *, as_json: bool
) -> None:
    """Fit, predict, compare, write tables into a folder and show them.

    Args:
        given: options.
        path: of the log.
        trace: file of the router's decisions in that run.
        out: folder.
        calibration: file that predicts in place of one fitted on the log.
        as_json: whether to print JSON.

    Raises:
        InputError: something of it cannot be used.
    """
    from offsim.calibration.schema import Calibration
    from offsim.files import check_writable, read_yaml, replacing
    from offsim.trace import load_trace

    if calibration is not None:
        refuse_others(
            "--calibration", {name: getattr(given, name) is not None for name in ("fit", "centre")}
        )
    engine = given.engine()
    loaded, log = load_trace(trace), given.log(path)
    figures = read_yaml(calibration, Calibration) if calibration is not None else None
    check_writable(out)
    if given.figure is not None:
        check_writable(given.figure.parent)
    display.note_compiling()
    from offsim.study.measured import held_out, model_of

    found = held_out(
        log,
        loaded,
        engine,
        model=model_of(loaded, given.expert_bytes),
        split=(given.fit or SplitName.FIRST).value,
        centre=(given.centre or CentreName.TYPICAL).value,
        calibration=figures,
    )
    facts = _written(found, engine, out)
    if given.figure is not None:
        from offsim.report.held_out import held_out_figure
        from offsim.report.style import png

        image = png(held_out_figure(found, path.name))
        with replacing(given.figure) as partial:
            partial.write_bytes(image)
    if as_json:
        display.emit_json(facts)
    else:
        _show(found, engine, path)
        typer.echo(f"tables: {out}")


def _written(found: "HeldOut", engine: "Engine", out: Path) -> dict[str, Any]:
    """Write tables, facts and what was fitted; the facts."""
    from offsim.files import write_json, write_text, write_yaml
    from offsim.study.held_out import facts

    told = {**facts(found), "engine": str(engine)}
    write_text(out / "held_out.csv", found.tokens.to_csv(index=False))
    write_json(out / "held_out.json", told)
    if found.fitted is not None:
        write_yaml(out / "held_out.yaml", found.calibration)
    return told


def _show(found: "HeldOut", engine: "Engine", path: Path) -> None:
    from offsim.study.held_out import by_token, overall

    compared = f"{len(found.held)} of {len(found.tokens)} tokens of {path.name}, {engine}"
    title = f"{compared}: MEASURED against {found.label}"
    display.show_table(title, _overall(overall(found), found))
    display.show_table("Token by token: mean absolute errors", _by_token(by_token(found), found))
    if found.fitted is not None:
        typer.echo(f"fitted on the others: {found.fitted}")


def _overall(table: "pd.DataFrame", found: "HeldOut") -> "pd.DataFrame":
    """As it is printed."""
    import pandas as pd

    rows = []
    for row in table.to_dict("records"):
        metric, rate = str(row["metric"]), row["metric"] in RATES
        shown = {
            "": NAMES[metric],
            "MEASURED": _number(metric, row["measured"]),
            found.label: _number(metric, row["simulated"]),
            "error": _error(row["error"], rate=rate),
        }
        if found.fitted is not None:
            shown["mean of the fitted"] = _number(metric, row["baseline"])
            shown["its error"] = _error(row["baseline_error"], rate=rate)
        rows.append(shown)
    return pd.DataFrame(rows)


def _by_token(table: "pd.DataFrame", found: "HeldOut") -> "pd.DataFrame":
    """As it is printed."""
    import pandas as pd

    rows = []
    for row in table.to_dict("records"):
        part = str(row["part"])
        alike = row["correlation"]
        shown = {
            "": NAMES[part].replace(", mean", ","),
            "correlation": "-" if math.isnan(alike) else f"{alike:.3f}",
            found.label: _number(part, row["simulated_off"]),
        }
        if found.fitted is not None:
            shown["mean of the fitted"] = _number(part, row["baseline_off"])
        rows.append(shown)
    return pd.DataFrame(rows)


def _number(metric: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    if metric in RATES:
        return f"{100 * value:.2f}"
    if metric == "tokens_per_s":
        return f"{value:.3g}"
    return f"{value / 1e6:.1f}" if metric == "read_bytes" else f"{1e3 * value:.4g}"


def _error(value: float, *, rate: bool) -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:+.2f} points" if rate else f"{value:+.1%}"
