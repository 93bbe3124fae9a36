"""`offsim calibrate`: measure this machine."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import devices, display, options
from offsim.cli.calibrate_from import OPTION, CalibratedRun, calibrate_from
from offsim.cli.calibrate_own import CalibratedModel, calibrate_model
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import grouped
from offsim.cli.logged import refuse_others, trace_alone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offsim.calibration.schema import Calibration
    from offsim.study.prepare import Key


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
    own: CalibratedModel,
    driven: Driven,
    logged: CalibratedRun,
    as_json: options.Json = False,
) -> None:
    """Measure link, codecs, compute and disk of this machine on the embedded model.

    With --model, on a checkpoint that answers the second half of the prompts of a file. With
    --trace, on generated experts that the second half of a trace's requests drives. With
    --from-run, nothing is measured: the calibration is fitted on the log of a run of any engine.

    With --device cuda, on a CUDA device: copies from pinned and from pageable memory by size and
    by how many there are side by side, experts and dense parts by tokens, codecs and decoding
    beside compute as runs have them, and what else decodes there: the official cuSZp library
    (OFFSIM_CUSZP_LIBRARY) and nvCOMP, where they are installed. This has never run on a GPU.

    Example: offsim calibrate --out machine.yaml --codec cuszp:0.0078125 --codec sz3:0.03125
    Or: offsim calibrate --model olmoe --prompts prompts.txt --codec cuszp:0.001 --out olmoe.yaml
    """
    from offsim.codec import codec_named
    from offsim.errors import InputError
    from offsim.files import check_writable, write_yaml
    from offsim.runtime.devices import device_named

    if disk is not None and not disk.is_dir():
        raise InputError(f"--disk {disk}: there is no such folder")
    if logged.log_file is not None:
        others = {"codec": bool(codec), "quick": quick, "disk": disk is not None}
        others |= {"device": device is not devices.Device.CPU}
        refuse_others(OPTION, others | own.given)
        check_writable(out.parent)
        calibrate_from(logged, logged.log_file, trace_alone(driven, OPTION), out, as_json=as_json)
        return
    logged.refuse(OPTION)
    wanted = _wanted(codec or ())
    is_own, _ = own.check(), own.count
    computes = device_named(device)
    check_writable(out.parent)
    for name, _ in wanted:
        computes.check(codec_named(name))
    routing = driven.subject()
    own.check_alone(routing)
    keys = list(dict.fromkeys([("raw", 0.0), *wanted]))
    if (is_own or routing is not None) and not wanted:
        raise InputError(
            "the codecs and bounds of a study are for the embedded model's weights; say with "
            "--codec which to measure on other ones, such as cuszp:0.001, or raw"
        )
    if routing is not None:
        routing.check_measurable()
        every = routing.model.shape.experts * routing.resident_layers
        routing.check_room(every, len(keys), driven.budget, routing.resident_layers)
        tell_driven(routing)
        routing = replace(routing, device=computes)
    with display.progress() as tell:
        tell("loading the model" if routing is None else "generating experts", 0.0)
        from offsim.study.calibrate import FULL, QUICK
        from offsim.study.plan import STORAGES
        from offsim.study.study import calibrate_alone

        effort = replace(QUICK if quick else FULL, placed=True)
        if is_own:
            figures = calibrate_model(own, keys, effort, tell, computes, disk)
        else:
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


def _wanted(codecs: "Sequence[str]") -> "list[Key]":
    """The codecs and bounds that are asked for.

    Raises:
        InputError: one is not a codec and a bound that it can have.
    """
    from offsim.cli.policies import policy_of
    from offsim.errors import InputError

    wanted = []
    for text in codecs:
        name, colon, bound = text.rpartition(":")
        name, bound = (name, bound) if colon else (text, "")
        try:
            wanted.append(policy_of(name, float(bound or 0)).key)
        except ValueError:
            raise InputError(f"--codec {text}: {bound!r} is not a number") from None
    return wanted


def _show(figures: "Calibration") -> None:
    """Print a row a codec, what sizes of a sample stand for, and what a device has besides."""
    from offsim.study.tables import codec_table, copies_table, decoder_table

    title = "Codecs on this machine, ratios against the stored dtype [MEASURED]"
    if any(codec.sampled is not None for codec in figures.codecs):
        title += "; sizes but those of raw [ESTIMATED]"
    # Of a checkpoint it may be any dtype.
    table = codec_table(figures).rename(columns=lambda name: name.removesuffix("_bf16"))
    display.show_table(title, table)
    _show_samples(figures)
    if figures.device is None:
        return
    name = figures.device.name
    display.show_table(f"GB/s to {name} [MEASURED]", copies_table(figures, figures.device))
    typer.echo("x2, x4: all copies side by side together; simulations go by `pinned`")
    if figures.device.decoders:
        title = f"Decoding one expert on {name} [MEASURED]"
        display.show_table(title, decoder_table(figures.device))


def _show_samples(figures: "Calibration") -> None:
    """Print a line for each codec whose sizes a sample stands for."""
    from offsim.units import show_bytes

    population = figures.model.layers * figures.model.experts
    for codec in figures.codecs:
        if (sample := codec.sampled) is None:
            continue
        spread = f"{show_bytes(sample.p10_bytes)} to {show_bytes(sample.p90_bytes)}"
        interval = "one expert says nothing of others"
        if sample.ratio_low is not None:
            interval = f"95 % interval {sample.ratio_low:.4g} to {sample.ratio_high:.4g}"
        typer.echo(
            f"{codec.codec} {codec.bound:g}: ratio {codec.ratio:.4g}, {interval} [ESTIMATED from "
            f"{sample.experts} of {population} experts]; the middle 80 % of them took {spread} "
            "[MEASURED]"
        )
