"""`offsim model`: what a model weighs and computes, from its checkpoint or its config alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options
from offsim.units import show_bytes

if TYPE_CHECKING:
    from offsim.calibration.describe import Description


def model(
    path: Annotated[Path, typer.Argument(help="Folder of a checkpoint, or a config.json.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Shape to write (YAML), which `offsim profile make --model` takes."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="What to call it; the name of the folder by default.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Describe a model: its experts, what every token reads and computes, its KV cache.

    Sizes come from the config, and those of experts from the tensors where there are any. Nothing
    is downloaded and no code of a checkpoint is run.

    Example: offsim model Qwen3-30B-A3B --out qwen3.yaml
    """
    from offsim.files import check_writable, write_yaml

    if out is not None:
        check_writable(out.parent)
    with display.progress() as tell:
        tell("reading", 0.0)
        from offsim.calibration.describe import describe

        found = describe(path)
    shape = found.shape if title is None else found.shape.model_copy(update={"title": title})
    if out is not None:
        write_yaml(out, shape)
    if as_json:
        display.emit_json(_numbers(found) | {"shape": shape.model_dump(mode="json")})
        return
    display.show_facts(f"{shape.title} [{shape.label}]", _rows(found))
    if shape.note:
        typer.echo(shape.note)
    if out is not None:
        typer.echo(f"shape: {out}")


def _numbers(found: "Description") -> dict[str, Any]:
    """What programs read; every unit is in the name."""
    shape = found.shape
    return {
        "label": shape.label,
        "model_type": found.model_type,
        "layers": found.layers,
        "moe_layers": list(found.moe_layers),
        "experts_dtype": found.dtype,
        "experts_from_tensors": found.checked,
        "expert_weights": shape.expert_weights,
        "expert_bytes": shape.expert_bytes,
        "experts_bytes": shape.experts_bytes,
        "resident_bytes": shape.resident_bytes,
        "parameters": shape.parameters,
        "dense_flop_per_token": found.dense_flop,
        "expert_flop_per_token": found.expert_flop,
        "attention_flop_per_token_pair": found.attention_flop,
        "kv_bytes_per_token": found.kv_bytes,
        "kv_bytes_per_token_in_windows": found.windowed_kv_bytes,
        "windows": {str(window): layers for window, layers in found.windows.items()},
    }


def _rows(found: "Description") -> dict[str, object]:
    """What people read."""
    shape = found.shape
    origin = "the tensors" if found.checked else "the config alone"
    sizes = f"{shape.hidden} x {shape.expert_width}, three matrices"
    kept = show_bytes(found.windowed_kv_bytes)
    windows = ", ".join(f"{count} layers: {window} tokens" for window, count in _windows(found))
    return {
        "architecture": found.model_type,
        "layers": f"{found.layers}, of which {_moe_layers(found)} have experts",
        "experts a layer": f"{shape.experts}, top-{shape.top_k}, {shape.shared_experts} shared",
        "expert": f"{sizes}, {show_bytes(shape.expert_bytes)}",
        "stored as": f"{found.dtype}, {shape.expert_bits:.6g} bits a weight (from {origin})",
        "all routed experts": show_bytes(shape.experts_bytes),
        "everything else": show_bytes(shape.resident_bytes),
        "parameters": f"{shape.parameters / 1e9:.4g} x 10^9",
        "dense part, a token": f"{found.dense_flop / 1e9:.4g} GFLOP",
        "experts, a token": f"{found.expert_flop / 1e9:.4g} GFLOP",
        "attention": f"{found.attention_flop / 1e6:.4g} MFLOP for each token attended to",
        "KV cache, a token": show_bytes(found.kv_bytes)
        + (f", of which {kept} in windows ({windows})" if windows else ""),
    }


def _windows(found: "Description") -> list[tuple[int, int]]:
    return sorted(found.windows.items())


def _moe_layers(found: "Description") -> str:
    """How many, and which unless it is all of them."""
    numbers = found.moe_layers
    count = str(len(numbers))
    if len(numbers) == found.layers:
        return "all" if found.layers > 1 else count
    if numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{count} ({numbers[0]} to {numbers[-1]})"
    return f"{count} ({', '.join(map(str, numbers))})"
