"""`offsim codecs list|bench`: the compressors, and what they make of weights."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options
from offsim.cli.own_model import experts_wanted

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from offsim.calibration.curve import CurvePoint
    from offsim.calibration.expert_sample import Asked
    from offsim.calibration.expert_summary import SampledPoint
    from offsim.cli.display import Tell
    from offsim.codec import Codec
    from offsim.model.reader import CheckpointExperts

app = typer.Typer(help="The compressors, and what they make of weights.", no_args_is_help=True)
LADDER = tuple(str(2.0**power) for power in range(-13, -4))
LONGEST_ROW = 1024
ROWS, REPEATS = 1 << 20, 5


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """Name every codec with its options, where it decodes and what it promises.

    Example: offsim codecs list
    """
    import pandas as pd

    from offsim.codec.registry import codec_kind, codec_names
    from offsim.errors import InputError

    rows = []
    for name in codec_names():
        try:
            kind = codec_kind(name)
            given = ", ".join(f"{key}={value}" for key, value in kind().options().items())
            row = {"decodes on": kind.placement, "promises": kind.promise, "options": given}
        except InputError as error:
            row = {"decodes on": "", "promises": "", "options": str(error)}
        rows.append({"codec": name, **row})
    if as_json:
        display.emit_json(rows)
    else:
        display.show_table("Codecs", pd.DataFrame(rows))


@app.command()
def bench(
    weights: Annotated[
        str | None, typer.Option(help="gaussian:SIGMA, bf16 weights N(0, SIGMA^2).")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a checkpoint whose expert weights are used.")
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help="As often as wanted, such as cuszp:mode=plain; default: all there are."),
    ] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            help="As often as wanted: 0.001, rel:0.01, mean-abs:0.1 or sigma:0.05; default: "
            f"{LADDER[0]} to {LADDER[-1]}, doubling."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help=f"Weights, in whole rows; default: {ROWS}.", min=32)
    ] = None,
    experts: Annotated[
        str | None,
        typer.Option(
            help="Whole experts of the checkpoint in place of rows: how many, drawn evenly over "
            "the layers, or all. Ratios get an interval."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the experts that --experts draws; default: 0.", min=0),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(help=f"Of each timing; default: {REPEATS}, with --experts 1 for each.", min=1),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for codecs.csv and rate_distortion.png. With --experts, each expert is "
            "noted there, and the same command goes on after an interruption."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure size, error and speed of codecs on one thread.

    Speeds are of bytes in the stored dtype; of memcpy means of a copy into fresh memory.

    Example: offsim codecs bench --weights gaussian:0.02 --bound 0.001 --bound sigma:0.1 --out out
    """
    from dataclasses import asdict

    from offsim.codec.bounds import Bound
    from offsim.errors import InputError
    from offsim.files import check_writable

    if weights is not None and checkpoint is not None:
        raise InputError("--weights and --checkpoint exclude each other; give one")
    bounds = [Bound.parse(text) for text in bound or LADDER]
    if experts is not None and (checkpoint is None or count is not None):
        raise InputError("--experts takes whole experts of --checkpoint; leave out --count")
    if experts is None and seed is not None:
        raise InputError("--seed is of the experts that --experts draws; leave it out")
    wanted = None if experts is None else experts_wanted(experts)
    if out is not None:
        check_writable(out)
    with display.progress() as tell:
        tell("loading", 0.0)
        import pandas as pd

        from offsim.calibration.curve import curve
        from offsim.calibration.expert_sample import Asked

        points: Sequence[CurvePoint | SampledPoint]
        with _one_thread():
            if wanted is not None and checkpoint is not None:
                experts_there = _opened(checkpoint)
                asked = Asked(_codecs(codec), bounds, repeats or 1, seed or 0)
                points, about = _of_experts(experts_there, wanted, asked, out, tell)
            else:
                sample, named = _rows(weights, checkpoint, count or ROWS)
                points = curve(sample, _codecs(codec), bounds, repeats or REPEATS, tell)
                about = {"weights": named, "count": sample.numel(), "dtype": _name(sample)}
        frame = pd.DataFrame([asdict(point) for point in points])
        if out is not None:
            _write(out, frame, str(about["weights"]))
    if as_json:
        display.emit_json({"label": "MEASURED", **about, "points": frame.to_dict(orient="records")})
        return
    dtype = str(about["dtype"])
    if wanted is None:
        title = f"{about['count']} weights in {dtype}, {about['weights']} [MEASURED]"
    else:
        of = f"{about['experts']} of {about['population']} experts of {about['checkpoint']}"
        title = f"{of}, as {dtype}; ratios with 95 % intervals over experts [MEASURED]"
    display.show_table(title, _shown(frame, dtype))
    if out is not None:
        typer.echo(f"{out / 'codecs.csv'}, {out / 'rate_distortion.png'}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread within the block."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _rows(weights: str | None, checkpoint: Path | None, count: int) -> "tuple[torch.Tensor, str]":
    """Rows of a checkpoint or drawn ones, and what to call them."""
    if checkpoint is None:
        return _drawn(weights or "gaussian:0.02", count)
    from offsim.calibration.expert_sample import sample_rows

    experts = _opened(checkpoint)
    return sample_rows(experts, count), f"experts of {experts.folder.resolve().name}"


def _opened(checkpoint: Path) -> "CheckpointExperts":
    """The experts of a checkpoint; what must be known of them is said on stderr."""
    from offsim.model.reader import CheckpointExperts
    from offsim.model.shards import Shards

    experts = CheckpointExperts(Shards(checkpoint))
    if experts.note:
        typer.echo(f"offsim: {experts.note}", err=True)
    return experts


def _of_experts(
    experts: "CheckpointExperts", wanted: int, asked: "Asked", out: Path | None, tell: "Tell"
) -> "tuple[list[SampledPoint], dict[str, object]]":
    """Points of whole experts, and what they are of."""
    from offsim.calibration.expert_sample import measure_sample
    from offsim.calibration.expert_summary import summarised

    shape, name = experts.shape, experts.folder.resolve().name
    population = shape.layers * shape.experts
    rows = measure_sample(experts, name, wanted or population, asked, out, tell)
    about = {
        "weights": f"{len(rows)} experts of {name}",
        "checkpoint": name,
        "experts": len(rows),
        "population": population,
        "seed": asked.seed,
        "stored_as": experts.stored_as,
        "stored_bytes": experts.stored_bytes,
        "dtype": _name(experts.matrices(0, 0)[0]),
    }
    return summarised(rows, shape.dtype_bytes, population), about


def _name(weights: "torch.Tensor") -> str:
    """Of the dtype."""
    return str(weights.dtype).removeprefix("torch.")


def _codecs(names: list[str] | None) -> "list[Codec]":
    """The codecs asked for, or all that work here, with the other modes of cuSZp and SZ3."""
    from offsim.codec import codec_named
    from offsim.codec.registry import VARIANTS, codec_names
    from offsim.errors import InputError

    if names:
        return [codec_named(name) for name in names]
    found = []
    for name in (*codec_names(), *VARIANTS):
        try:
            found.append(codec_named(name))
        except InputError as error:
            typer.echo(f"left out: {error}", err=True)
    return found


def _drawn(text: str, count: int) -> "tuple[torch.Tensor, str]":
    """Gaussian weights in bf16, and what to call them."""
    import torch

    from offsim.errors import InputError

    kind, _, value = text.partition(":")
    try:
        sigma = float(value)
    except ValueError:
        sigma = math.nan
    if kind != "gaussian" or not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"--weights is gaussian:SIGMA with SIGMA above zero, not {text}")
    generator = torch.Generator().manual_seed(0)
    width = LONGEST_ROW if count % LONGEST_ROW == 0 else count
    drawn = torch.randn(count // width, width, generator=generator) * sigma
    return drawn.bfloat16(), f"N(0, {sigma:g}²)"


def _write(out: Path, frame: "pd.DataFrame", named: str) -> None:
    from offsim.files import replacing, write_text
    from offsim.report.rate_distortion import rate_distortion_figure
    from offsim.report.style import png

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "codecs.csv", frame.to_csv(index=False))
    with replacing(out / "rate_distortion.png") as partial:
        partial.write_bytes(png(rate_distortion_figure(frame, named)))


def _shown(frame: "pd.DataFrame", dtype: str) -> "pd.DataFrame":
    """The columns that people read, in their units."""
    import pandas as pd

    from offsim.report.text import bound_text

    def speed(name: str) -> "pd.Series[str]":
        pairs = zip(frame[f"{name}_bytes_per_s"] / 1e6, frame[f"{name}_of_memcpy"], strict=True)
        return pd.Series([f"{speed:.0f} MB/s, {ratio:.2f}" for speed, ratio in pairs])

    pairs = zip(frame["asked"], frame["bound"], strict=True)
    promised = [(bound_text(b) if asked == f"{b:g}" else asked) or "-" for asked, b in pairs]
    ratios: Sequence[object] = list(frame["ratio"])
    if "fallback" in frame:
        raw = frame["fallback"].map({False: "", True: " (stored raw)"})
    else:
        raw = frame["fallbacks"].map(lambda count: f" ({count} matrices stored raw)" * (count > 0))
        ends = zip(frame["ratio"], frame["ratio_low"], frame["ratio_high"], strict=True)
        ratios = [_ratio(*three) for three in ends]
    return pd.DataFrame(
        {
            "codec": frame["codec"] + raw,
            "bound": promised,
            f"ratio ({dtype})": ratios,
            "bits": frame["bits_per_weight"],
            "ideal": frame["ideal_bits"].map(
                lambda bits: "-" if math.isnan(bits) else f"{bits:.3g}"
            ),
            "max error": frame["largest_error"],
            "RMSE": frame["rmse"],
            "encode, of memcpy": speed("encode"),
            "decode, of memcpy": speed("decode"),
        }
    )


def _ratio(ratio: float, low: float, high: float) -> str:
    """A ratio with the ends of its interval, if it has one."""
    return f"{ratio:.3g}" if math.isnan(low) else f"{ratio:.3g} ({low:.3g}-{high:.3g})"
