"""`offsim calibrate`: measure this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options
from offsim.cli.calibrate_from import OPTION, CalibratedRun, calibrate_from
from offsim.cli.devices import Device, require
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import grouped
from offsim.cli.logged import refuse_others, trace_alone


@grouped
def calibrate(
    *,
    out: Annotated[Path, typer.Option(help="Calibration file to write (YAML).")],
    codec: Annotated[
        list[str] | None,
        typer.Option(help="NAME:BOUND to measure, as often as wanted; default: those of a study."),
    ] = None,
    device: Annotated[Device, typer.Option(help="What is measured.")] = Device.CPU,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples.")] = False,
    disk: Annotated[
        Path | None,
        typer.Option(help="Folder on the disk to measure; default: where temporary files are."),
    ] = None,
    driven: Driven,
    logged: CalibratedRun,
    as_json: options.Json = False,
) -> None:
    """Measure link, codecs, compute and disk of this machine on the embedded model.

    With --trace, on generated experts that the second half of a trace's requests drives. With
    --from-run, nothing is measured: the calibration is fitted on the log of a run of any engine.

    Example: offsim calibrate --out machine.yaml --codec cuszp:0.0078125 --codec sz3:0.03125
    """
    from offsim.cli.policies import policy_of
    from offsim.errors import InputError
    from offsim.files import check_writable, write_yaml

    require(device)
    check_writable(out.parent)
    if disk is not None and not disk.is_dir():
        raise InputError(f"--disk {disk}: there is no such folder")
    if logged.log_file is not None:
        refuse_others(OPTION, {"codec": bool(codec), "quick": quick, "disk": disk is not None})
        calibrate_from(logged, logged.log_file, trace_alone(driven, OPTION), out, as_json=as_json)
        return
    logged.refuse(OPTION)
    wanted = []
    for text in codec or ():
        name, colon, bound = text.rpartition(":")
        name, bound = (name, bound) if colon else (text, "")
        try:
            wanted.append(policy_of(name, float(bound or 0)).key)
        except ValueError:
            raise InputError(f"--codec {text}: {bound!r} is not a number") from None
    routing = driven.subject()
    keys = list(dict.fromkeys([("raw", 0.0), *wanted]))
    if routing is not None:
        if not wanted:
            raise InputError(
                "the codecs and bounds of a study are for the embedded model's weights; say with "
                "--codec which to measure on generated ones, such as cuszp:0.001, or raw"
            )
        routing.check_measurable()
        every = routing.model.shape.experts * routing.resident_layers
        routing.check_room(every, len(keys), driven.budget, routing.resident_layers)
        tell_driven(routing)
    with display.progress() as tell:
        tell("loading the embedded model" if routing is None else "generating experts", 0.0)
        from offsim.study.calibrate import FULL, QUICK
        from offsim.study.plan import STORAGES
        from offsim.study.study import calibrate_alone
        from offsim.study.tables import codec_table

        effort = replace(QUICK if quick else FULL, placed=True)
        figures = calibrate_alone(keys if wanted else STORAGES, effort, tell, routing, disk)
        write_yaml(out, figures)
    if as_json:
        display.emit_json(figures.model_dump(mode="json"))
    else:
        display.show_table("Codecs on this machine [MEASURED]", codec_table(figures))
        typer.echo(f"calibration: {out}")
