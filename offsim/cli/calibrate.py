"""`offsim calibrate`: measure this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options
from offsim.cli.calibrate_from import OPTION, CalibratedRun, calibrate_from
from offsim.cli.calibrate_own import CalibratedModel, calibrate_model
from offsim.cli.devices import Device, require
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
    device: Annotated[Device, typer.Option(help="What is measured.")] = Device.CPU,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples.")] = False,
    own: CalibratedModel,
    driven: Driven,
    logged: CalibratedRun,
    as_json: options.Json = False,
) -> None:
    """Measure the link, the codecs and the compute of this machine on the embedded model.

    With --model, on a checkpoint that answers the second half of the prompts of a file. With
    --trace, on generated experts that the second half of a trace's requests drives. With
    --from-run, nothing is measured: the calibration is fitted on the log of a run of any engine.

    Example: offsim calibrate --out machine.yaml --codec cuszp:0.0078125 --codec sz3:0.03125
    Or: offsim calibrate --model olmoe --prompts prompts.txt --codec cuszp:0.001 --out olmoe.yaml
    """
    from offsim.errors import InputError
    from offsim.files import check_writable, write_yaml

    require(device)
    check_writable(out.parent)
    if logged.log_file is not None:
        refuse_others(OPTION, {"codec": bool(codec), "quick": quick} | own.given)
        calibrate_from(logged, logged.log_file, trace_alone(driven, OPTION), out, as_json=as_json)
        return
    logged.refuse(OPTION)
    wanted = _wanted(codec or ())
    is_own, _ = own.check(), own.count
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
    with display.progress() as tell:
        tell("loading the model" if routing is None else "generating experts", 0.0)
        from offsim.study.calibrate import FULL, QUICK
        from offsim.study.plan import STORAGES
        from offsim.study.study import calibrate_alone

        effort = QUICK if quick else FULL
        if is_own:
            figures = calibrate_model(own, keys, effort, tell)
        else:
            figures = calibrate_alone(keys if wanted else STORAGES, effort, tell, routing)
        write_yaml(out, figures)
    if as_json:
        display.emit_json(figures.model_dump(mode="json"))
    else:
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
    """Print a row a codec, and below it what is said of sizes that a sample stands for."""
    from offsim.study.tables import codec_table
    from offsim.units import show_bytes

    estimated = any(codec.sampled is not None for codec in figures.codecs)
    title = "Codecs on this machine, ratios against the stored dtype [MEASURED]"
    if estimated:
        title += "; sizes but those of raw [ESTIMATED]"
    # Of a checkpoint it may be any dtype.
    table = codec_table(figures).rename(columns=lambda name: name.removesuffix("_bf16"))
    display.show_table(title, table)
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
