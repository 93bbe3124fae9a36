"""`offsim sweep`: many what-ifs, side by side, into one file."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    from offsim.study.sweep.executors import Hire


def sweep(
    spec: Annotated[Path, typer.Argument(help="What to simulate (YAML; docs/sweep.md).")],
    out: Annotated[
        Path, typer.Option(help="SQLite file of the results; one that is there is gone on with.")
    ],
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Processes that simulate; 1: the command itself; one a core by default.", min=1
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Address of a Dask scheduler whose workers simulate, such as tcp://host:8786; "
            "extra `cluster`."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Simulate all scenarios of a SPEC that the file has no answer for yet.

    Example: offsim sweep sweep.yaml --out sweep.sqlite && offsim results sweep.sqlite --sort tpot_s
    """
    from offsim.study.sweep.drive import sweep as run
    from offsim.study.sweep.plan import planned

    hire = _hired(jobs, dask)
    plan = planned(spec)
    display.note_compiling()
    try:
        with display.progress(as_json) as tell:
            done = run(plan, out, hire, tell)
    except KeyboardInterrupt:
        typer.echo(f"offsim: {out} has all answers so far; the same command goes on", err=True)
        raise
    if as_json:
        display.emit_json({**asdict(done), "per_s": done.per_s})
        return
    facts: dict[str, object] = {
        "scenarios": f"{done.scenarios:,}",
        "answered before": f"{done.known:,}",
        "refused": f"{done.refused:,}",
        "seconds": f"{done.seconds:,.3g} ({done.per_s:,.3g} scenarios/s)",
    }
    display.show_facts(f"Sweep of {spec.name} [SIMULATED]", facts)
    typer.echo(f"results: {out}")


def _hired(jobs: int | None, dask: str | None) -> "Hire":
    """Who simulates.

    Raises:
        InputError: both options are given, or Dask is not installed.
    """
    from offsim.errors import InputError
    from offsim.study.sweep.executors import in_process, processes

    if dask is None:
        return in_process() if jobs == 1 else processes(jobs)
    if jobs is not None:
        raise InputError("--jobs are processes of this machine; leave it out beside --dask")
    from offsim.study.sweep.cluster import scheduler

    return scheduler(dask)
