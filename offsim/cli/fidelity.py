"""`offsim fidelity`: how exact predictions are, by a fixed design of policies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from offsim.cli import display, options


def fidelity(
    out: Annotated[
        Path, typer.Option(help="Folder for the tables; what it has already is not done again.")
    ] = Path("fidelity"),
    repetitions: Annotated[int, typer.Option(help="Of each part of the design.", min=1)] = 3,
    apart: Annotated[
        float,
        typer.Option(help="Minutes from the start of one repetition to the next, at least.", min=0),
    ] = 0.0,
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only this part of the design; may be given several times."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Calibrate, predict and run the policies of a fixed design, again and again.

    The design mixes codecs, bounds, caches, cache sizes, prefetchers, chunks and link speeds, on
    the embedded model and on larger experts that its routing drives. Takes 10 to 20 minutes a
    repetition; one that was cut off goes on with the part where it was. Two more parts,
    placed-embedded and placed-1.6MB, are run where --part names them: experts on disk, on the host,
    and as blobs on the device.

    Example: offsim fidelity --out fidelity --repetitions 3 --apart 30
    """
    from offsim.errors import InputError
    from offsim.files import check_writable
    from offsim.study.design import PARTS
    from offsim.study.fidelity import fidelity as measure
    from offsim.study.placed_design import PLACED_PARTS

    known = {part.name: part for part in (*PARTS, *PLACED_PARTS)}
    for name in parts or ():
        if name not in known:
            raise InputError(f"the design has no part {name!r}; it has {', '.join(known)}")
    check_writable(out)
    wanted = parts or [part.name for part in PARTS]
    chosen = [known[name] for name in dict.fromkeys(wanted)]
    with display.progress() as tell:
        _, facts = measure(out, repetitions, 60 * apart, chosen, tell)
    if as_json:
        display.emit_json(facts)
        return
    show_errors(facts)
    typer.echo(f"tables: {out}")


def show_errors(facts: Mapping[str, Any]) -> None:
    """Print the errors by part and metric, and what else is judged."""
    import pandas as pd

    rows = []
    for name, part in {**facts["parts"], "all": facts}.items():
        covered = part["covered"] or {}
        for metric, error in part["errors"].items():
            rows.append(
                {
                    "part": name,
                    "metric": metric,
                    **{how: f"{error[how]:.1%}" for how in ("median", "p90", "worst")},
                    "in the band": f"{covered[metric]:.0%}" if metric in covered else "",
                }
            )
    title = "Errors of SIMULATED against MEASURED, and measured values within the band"
    display.show_table(title, pd.DataFrame(rows))
    terms = {"all terms": facts["errors"]["tpot"], **facts["tpot_error_without"]}
    rows = [
        {
            "without": name.replace("_", " "),
            **{how: f"{error[how]:.1%}" for how in ("median", "worst")},
        }
        for name, error in terms.items()
    ]
    display.show_table("Error of TPOT where a term of the model is left out", pd.DataFrame(rows))
    logs = "equal" if facts["decision_logs_equal"] and facts["bytes_equal"] else "DIFFERENT"
    typer.echo(
        f"{facts['policies']} policies, {facts['runs_compared']} comparisons; Kendall tau "
        f"{facts['kendall_tau']:.3f} (least {facts['kendall_tau_least']:.3f}); the best policy "
        f"named in {facts['best_named']:.0%} of {facts['groups']} groups; noise of a measured TPOT "
        f"{facts['tpot_noise_median']:.1%}; decision logs and bytes {logs}"
    )
