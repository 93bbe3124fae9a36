"""`offsim sensitivity`: what a bounded error costs, by layer, expert and matrix."""

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    from offsim.accuracy.sensitivity import Sensitivity

FULL_MINUTES, QUICK_MINUTES = 10.0, 1.0
QUICK: dict[str, Any] = {"sequences": 16, "items": 5}


class By(StrEnum):
    """The finest places that are measured."""

    LAYER = "layer"
    MATRIX = "matrix"
    EXPERT = "expert"


def sensitivity(
    out: Annotated[
        Path, typer.Option(help="Folder for the result; trials that it has are not done again.")
    ] = Path("sensitivity"),
    minutes: Annotated[
        float | None,
        typer.Option(help="Budget, which chooses the design; 10, or 1 with --quick."),
    ] = None,
    source: Annotated[
        str, typer.Option(help="What makes the error: codec:NAME, uniform or normal.")
    ] = "codec:cuszp",
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="A codec that takes no bound, such as rtn-int4, measured for whole layers too; "
            "may be repeated."
        ),
    ] = None,
    bounds: Annotated[
        str | None,
        typer.Option(
            help="Ladder of bounds, rising, of one kind, such as sigma:0.1,sigma:0.2; by default "
            "sigma from 2^-7 to 2 in steps of 2."
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="Finest places that are measured.")] = By.EXPERT,
    seed: Annotated[
        int, typer.Option(help="Of texts, items, noise and joint injections.", min=0)
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A quarter of the texts and a sixth of the items.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure what an error costs at each place of the embedded model, and whether costs add up.

    The cost is the divergence KL of the next-token distribution from the model without an error.
    One place at a time has an error: layers first, then matrices and experts, as far as the budget
    reaches. A sum of terms is fitted and then judged by joint injections that it has not seen. The
    folder gets `sensitivity.json`, tables and figures; a run that was cut off goes on where it
    was.

    Example: offsim sensitivity --minutes 10 --source codec:cuszp --out sensitivity
    """
    from offsim.codec.bounds import Bound
    from offsim.errors import InputError
    from offsim.report.sensitivity_page import write_sensitivity_report
    from offsim.study.sensitivity import ModelMeter
    from offsim.study.sensitivity import sensitivity as measure
    from offsim.study.sensitivity_design import Options
    from offsim.testbed.load import load

    chosen = minutes if minutes is not None else QUICK_MINUTES if quick else FULL_MINUTES
    if not 0 < chosen < math.inf:
        raise InputError(f"--minutes is a number above 0, not {chosen:g}")
    asked: dict[str, Any] = QUICK if quick else {}
    if bounds is not None:
        asked = asked | {"bounds": tuple(Bound.parse(text.strip()) for text in bounds.split(","))}
    others = tuple(also or ())
    wanted = Options(source=source, also=others, by=by.value, seed=seed, minutes=chosen, **asked)
    with display.progress(quiet=as_json) as tell:
        tell("reading the texts without an error", 0.0)
        meter = ModelMeter("embedded", load(), wanted)
        found = measure(out, wanted, meter, tell, lambda text: typer.echo(text, err=True))
    page = write_sensitivity_report(out)
    if as_json:
        display.emit_json(found.model_dump(mode="json", exclude={"cells", "joints"}))
        return
    show(found)
    typer.echo(f"file, tables and figures: {out}; page: {page}")


def show(found: "Sensitivity") -> None:
    """Print the divergence by layer and bound, and how right the sum of terms is."""
    import pandas as pd

    from offsim.report.sensitivity_page import reach, terms_text

    rungs = [f"{value:g}" for value in found.ladder]
    whole = {
        (cell.place.layer, f"{cell.bound.value:g}"): cell.kl.mean
        for cell in found.cells
        if cell.place.matrix is None and cell.place.expert is None
    }
    rows = [
        {
            "layer": rise.layer,
            **{rung: whole[rise.layer, rung] for rung in rungs},
            **{one.codec: one.kl[rise.layer].mean for one in found.unbounded},
            "rises": _rise(rise.rises, [f"{bound.value:g}" for bound in rise.falls]),
        }
        for rise in found.rises
    ]
    title = f"KL of one layer under {found.source} by {found.kind}, nats a token [MEASURED]"
    display.show_table(title, pd.DataFrame(rows))
    typer.echo(terms_text(found))
    if found.additivity is None:
        return
    judged = found.additivity
    rows = [
        {
            "predicted KL": f"{one.above:g} to {one.up_to:g}" if one.up_to <= 1 else "above 1",
            "joint injections": one.joints,
            f"within {judged.tolerance:.0%}": "" if one.right is None else one.right,
            "median error": f"{one.median:.1%}",
            "worst": f"{one.worst:.1%}",
            "bias": f"{one.bias:+.1%}",
        }
        for one in judged.regimes
    ]
    title = "Sum of terms [ESTIMATED] against held-out joint injections [MEASURED]"
    display.show_table(title, pd.DataFrame(rows))
    tau = "unknown" if judged.kendall_tau is None else f"{judged.kendall_tau:.3f}"
    typer.echo(
        f"{judged.joints} joint injections: error {judged.median:.1%} in the median, "
        f"{judged.worst:.1%} at worst, Kendall tau {tau}; {reach(judged)}"
    )


def _rise(rises: bool, falls: list[str]) -> str:
    if falls:
        return f"falls at {', '.join(falls)}"
    return "always" if rises else "within the interval"
