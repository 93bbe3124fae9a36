"""`offsim calibrate`: measure this machine."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import devices, display, options
from offsim.cli.calibrate_from import OPTION, CalibratedRun, calibrate_from
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import grouped
from offsim.cli.logged import refuse_others, trace_alone

if TYPE_CHECKING:
    from offsim.calibration.schema import Calibration


@grouped
def calibrate(
    *,
    out: Annotated[Path, typer.Option(help="Calibration file to write (YAML).")],
    codec: Annotated[
        list[str] | None,
        typer.Option(help="NAME:BOUND to measure, as often as wanted; default: those of a study."),
    ] = None,
    device: devices.DeviceOption = devices.Device.CPU,
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

    With --device cuda, on a CUDA device: copies from pinned and from pageable memory by size and
    by how many there are side by side, experts and dense parts by tokens, codecs and decoding
    beside compute as runs have them, and what else decodes there: the official cuSZp library
    (OFFSIM_CUSZP_LIBRARY) and nvCOMP, where they are installed. This has never run on a GPU.

    Example: offsim calibrate --out machine.yaml --codec cuszp:0.0078125 --codec sz3:0.03125
    """
    from offsim.cli.policies import policy_of
    from offsim.codec import codec_named
    from offsim.errors import InputError
    from offsim.files import check_writable, write_yaml
    from offsim.runtime.devices import device_named

    if disk is not None and not disk.is_dir():
        raise InputError(f"--disk {disk}: there is no such folder")
    if logged.log_file is not None:
        elsewhere = device is not devices.Device.CPU
        others = {"codec": bool(codec), "quick": quick, "device": elsewhere}
        refuse_others(OPTION, {**others, "disk": disk is not None})
        check_writable(out.parent)
        calibrate_from(logged, logged.log_file, trace_alone(driven, OPTION), out, as_json=as_json)
        return
    logged.refuse(OPTION)
    computes = device_named(device)
    check_writable(out.parent)
    wanted = []
    for text in codec or ():
        name, colon, bound = text.rpartition(":")
        name, bound = (name, bound) if colon else (text, "")
        try:
            wanted.append(policy_of(name, float(bound or 0)).key)
        except ValueError:
            raise InputError(f"--codec {text}: {bound!r} is not a number") from None
        computes.check(codec_named(name))
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
        routing = replace(routing, device=computes)
    with display.progress() as tell:
        tell("loading the embedded model" if routing is None else "generating experts", 0.0)
        from offsim.study.calibrate import FULL, QUICK
        from offsim.study.plan import STORAGES
        from offsim.study.study import calibrate_alone

        effort = replace(QUICK if quick else FULL, placed=True)
        chosen = keys if wanted else STORAGES
        figures = calibrate_alone(chosen, effort, tell, routing, computes, disk)
        write_yaml(out, figures)
    for left_out in [] if figures.device is None else figures.device.left_out:
        typer.echo(f"offsim: note: left out: {left_out}", err=True)
    if as_json:
        display.emit_json(figures.model_dump(mode="json"))
        return
    _show(figures)
    typer.echo(f"calibration: {out}")


def _show(figures: "Calibration") -> None:
    """Print the codecs, and of a device with memory of its own its copies and decoders."""
    from offsim.study.tables import codec_table, copies_table, decoder_table

    display.show_table("Codecs on this machine [MEASURED]", codec_table(figures))
    if figures.device is None:
        return
    name = figures.device.name
    title = f"GB/s to {name} [MEASURED]"
    display.show_table(title, copies_table(figures, figures.device))
    typer.echo("x2, x4: all copies side by side together; simulations go by `pinned`")
    if figures.device.decoders:
        title = f"Decoding one expert on {name} [MEASURED]"
        display.show_table(title, decoder_table(figures.device))
