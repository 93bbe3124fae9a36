"""`offsim profile list|make`: machines from data sheets, and calibrations made of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    import pandas as pd

    from offsim.calibration.hardware import Profile
    from offsim.calibration.shapes import ModelShape

app = typer.Typer(
    help="Machines and models from data sheets; all of it is ESTIMATED.", no_args_is_help=True
)


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List the machines and model shapes with their key numbers, all ESTIMATED.

    Example: offsim profile list
    """
    import pandas as pd

    from offsim.calibration.hardware import LABEL
    from offsim.calibration.profiles import load_profile, load_shape, machine_names, model_names

    machines = [_machine_row(load_profile(name)) for name in machine_names()]
    models = [_model_row(name, load_shape(name)) for name in model_names()]
    if as_json:
        display.emit_json({"label": LABEL, "machines": machines, "models": models})
        return
    display.show_table(f"Machines [{LABEL}]", _shown(pd.DataFrame(machines)))
    display.show_table(f"Models [{LABEL}]", _shown(pd.DataFrame(models)))


@app.command()
def make(
    machine: Annotated[str, typer.Option(help="Name in `profile list`, or a profile's file.")],
    model: Annotated[str, typer.Option(help="Name in `profile list`, or a shape's file.")],
    out: Annotated[Path, typer.Option(help="Calibration file to write (YAML).")],
    codec: Annotated[
        list[str] | None,
        typer.Option(help="NAME:BOUND, as often as wanted: cuszp or sz3; raw is always there."),
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Standard deviation of the experts' weights.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens that each token attends to.", min=0)] = 1024,
    as_json: options.Json = False,
) -> None:
    """Write an ESTIMATED calibration of a model on a machine that is not at hand.

    Example: offsim profile make --machine rtx-4090-pcie4 --model mixtral-8x7b --codec cuszp:0.002
    --out calibration.yaml
    """
    import math

    from offsim.calibration.profiles import (
        ASSUMED_SIGMA,
        estimated,
        load_profile,
        load_shape,
        slots_that_fit,
    )
    from offsim.errors import InputError
    from offsim.files import check_writable, write_yaml

    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"--sigma is a number above zero, not {sigma:g}")
    codecs = [("raw", 0.0), *(_key(text) for text in codec or ())]
    profile, shape = load_profile(machine), load_shape(model)
    figures = estimated(profile, shape, codecs, sigma, context)
    check_writable(out.parent)
    write_yaml(out, figures)
    lossy = len(figures.codecs) > 1
    if lossy and sigma is None and shape.sigma is None:
        typer.echo(
            f"the weights of {shape.title} are assumed to have a standard deviation of "
            f"{ASSUMED_SIGMA:g}; --sigma gives another",
            err=True,
        )
    if as_json:
        display.emit_json(figures.model_dump(mode="json"))
        return
    import pandas as pd

    rows = [
        {
            "codec": one.codec,
            "bound": one.bound,
            "expert, bytes": one.blob_bytes[0][0],
            "ratio": one.ratio,
            "link, ms": 1e3 * _link_s(profile, shape, one.blob_bytes[0][0], one.placement),
            "decode, ms": 1e3 * one.decode_s.value,
        }
        for one in figures.codecs
    ]
    title = f"{shape.title} on {profile.title} [{profile.label}]"
    display.show_table(title, pd.DataFrame(rows))
    typer.echo(f"experts of each layer that fit on the device: {slots_that_fit(profile, shape)}")
    typer.echo(f"calibration: {out}")


def _key(text: str) -> tuple[str, float]:
    """Codec and bound of NAME:BOUND.

    Raises:
        InputError: it is not of this form.
    """
    from offsim.errors import InputError

    name, colon, bound = text.rpartition(":")
    name, bound = (name, bound) if colon else (text, "0")
    try:
        return name, float(bound)
    except ValueError:
        raise InputError(f"--codec {text}: {bound!r} is not a number") from None


def _link_s(profile: "Profile", shape: "ModelShape", blob: int, placement: str) -> float:
    """One transfer of an expert, s; what the host decodes crosses the link as stored."""
    crossing = shape.expert_bytes if placement == "host" else blob
    return profile.link.latency_s.value + crossing / profile.link.bytes_per_s.value


def _machine_row(profile: "Profile") -> dict[str, Any]:
    gpu, price = profile.gpu, profile.gpu.price_usd_per_h
    return {
        "machine": profile.name,
        "label": profile.label,
        "memory_bytes": gpu.memory_bytes.value,
        "memory_bytes_per_s": profile.memory_bytes_per_s,
        "flop_per_s": profile.flop_per_s,
        "link_bytes_per_s": profile.link.bytes_per_s.value,
        "disk_bytes_per_s": profile.disk.bytes_per_s.value,
        "power_w": gpu.power_w.value,
        "price_usd_per_h": price.value if price else None,
        "assumptions": profile.assumptions(),
    }


def _model_row(name: str, shape: "ModelShape") -> dict[str, Any]:
    return {
        "model": name,
        "label": shape.label,
        "layers": shape.moe_layers,
        "experts": shape.experts,
        "top_k": shape.top_k,
        "expert_bytes": shape.expert_bytes,
        "expert_bits": shape.expert_bits,
        "experts_bytes": shape.experts_bytes,
        "resident_bytes": shape.resident_bytes,
        "parameters": shape.parameters,
    }


UNITS = {
    "memory_bytes": ("memory, GB", 1e9),
    "memory_bytes_per_s": ("reached, GB/s", 1e9),
    "flop_per_s": ("reached, TFLOP/s", 1e12),
    "link_bytes_per_s": ("link, GB/s", 1e9),
    "disk_bytes_per_s": ("disk, GB/s", 1e9),
    "power_w": ("power, W", 1.0),
    "price_usd_per_h": ("USD/h", 1.0),
    "expert_bytes": ("expert, MB", 1e6),
    "expert_bits": ("bits", 1.0),
    "experts_bytes": ("experts, GB", 1e9),
    "resident_bytes": ("the rest, GB", 1e9),
    "parameters": ("parameters, 10^9", 1e9),
}
"""How people read the columns."""


def _shown(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The columns that people read, in their units; `-` where a number is not known."""
    kept = frame.drop(columns=["label", "assumptions"], errors="ignore")
    for name, (_, unit) in UNITS.items():
        if name in kept:
            numbers = kept[name].astype(float) / unit
            kept[name] = numbers.astype(object).where(numbers.notna(), "-")
    return kept.rename(columns={name: shown for name, (shown, _) in UNITS.items()})
