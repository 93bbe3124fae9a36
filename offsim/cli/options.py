"""Options that several commands share."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.record import RunRecord

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Codec = Annotated[str, typer.Option(help="How host memory holds the experts: raw, cuszp, sz3.")]
Bound = Annotated[
    float, typer.Option(help="Largest error of a weight in its stored dtype (bf16); 0 for raw.")
]
BoundsFile = Annotated[
    Path | None,
    typer.Option(
        "--bounds",
        help="Table of bounds (YAML, `offsim bounds make`) in place of --bound: each layer, expert "
        "and matrix has its own.",
    ),
]
Cache = Annotated[
    str,
    typer.Option(
        help="Expert cache: lru, lfu, lfu-aging, fifo, random, s3-fifo, weight, pinned, belady."
    ),
]


class PoolScope(StrEnum):
    """Whose a cache is."""

    LAYER = "layer"
    GLOBAL = "global"


Scope = Annotated[PoolScope, typer.Option(help="A pool for each layer, or one for all of them.")]
Profile = Annotated[
    Path | None,
    typer.Option(
        help="Trace whose popular experts the cache `pinned` keeps, and from which prefetchers "
        "learn: `popularity` needs one, `transition` may have one."
    ),
]
Slots = Annotated[int, typer.Option(help="Experts that each layer keeps on the device.", min=0)]
PREFETCHING, TRANSFERS, PLACEMENT = "Prefetching", "Transfers", "Placement, in simulations"
Prefetch = Annotated[
    str,
    typer.Option(
        help="What is loaded before it is asked for: none, gate, last-token, transition, "
        "popularity; in simulations also oracle, noisy-oracle.",
        rich_help_panel=PREFETCHING,
    ),
]
Distance = Annotated[
    int,
    typer.Option(help="Layers that it looks ahead.", min=1, rich_help_panel=PREFETCHING),
]
PrefetchBudget = Annotated[
    str | None,
    typer.Option(
        help="Bytes that it may issue in a step, such as 64MiB; all that it likes by default.",
        rich_help_panel=PREFETCHING,
    ),
]
Precision = Annotated[
    float,
    typer.Option(
        help="Of noisy-oracle: share of what it foresees that is asked for, above 0 to 1.",
        rich_help_panel=PREFETCHING,
    ),
]
Recall = Annotated[
    float,
    typer.Option(
        help="Of noisy-oracle: share of what is asked for that it foresees, 0 to 1.",
        rich_help_panel=PREFETCHING,
    ),
]
Chunk = Annotated[
    str | None,
    typer.Option(
        help="A load crosses the link in equal parts of at most this, such as 1MiB; what is asked "
        "for now goes first at each cut. Whole by default.",
        rich_help_panel=TRANSFERS,
    ),
]
Pipelined = Annotated[
    bool,
    typer.Option(
        "--pipelined",
        help="Decode a chunk while the next one moves; in simulations.",
        rich_help_panel=TRANSFERS,
    ),
]
Channels = Annotated[
    int,
    typer.Option(
        help="Links side by side, each at the full speed.", min=1, rich_help_panel=TRANSFERS
    ),
]
Decoders = Annotated[
    int,
    typer.Option(
        help="Blobs that the host decodes side by side.", min=1, rich_help_panel=TRANSFERS
    ),
]


class KeepName(StrEnum):
    """How the device keeps experts."""

    DECODED = "decoded"
    COMPRESSED = "compressed"


HostMemory = Annotated[
    str | None,
    typer.Option(
        help="Host memory for experts, such as 64GiB; the rest are on disk. Room for all of them "
        "by default.",
        rich_help_panel=PLACEMENT,
    ),
]
HostTokens = Annotated[
    str,
    typer.Option(
        help="A missing expert that serves at most so many tokens is computed on the host; `auto`: "
        "where that is faster than moving it.",
        rich_help_panel=PLACEMENT,
    ),
]
Keep = Annotated[
    KeepName,
    typer.Option(
        help="The device keeps experts decoded, or compressed and decodes them at each use.",
        rich_help_panel=PLACEMENT,
    ),
]


class EngineName(StrEnum):
    """Who tells the time of a simulation."""

    FAST = "fast"
    SIMPY = "simpy"


Engine = Annotated[
    EngineName, typer.Option(help="Who tells the time; both give the same, to the last bit.")
]
Noise = Annotated[
    int | None,
    typer.Option(
        "--noise",
        help="Draw each time from its calibrated spread, with this seed; the calibrated values by "
        "default.",
        min=0,
    ),
]
LinkSpeed = Annotated[
    str,
    typer.Option(
        "--link",
        help="Pace of the link in MB/s; `plain` for memory copies; `paced` for the ratio of "
        "transfer to compute of Mixtral-8x7B over PCIe 4.0.",
    ),
]
Requests = Annotated[int, typer.Option(help="Requests, of mixed tasks.", min=1)]
Tokens = Annotated[int, typer.Option(help="Tokens written for each request.", min=1)]
Seed = Annotated[int, typer.Option(help="Of the prompts that are drawn.")]
CalibrationFile = Annotated[
    Path, typer.Option("--calibration", help="Calibration file (YAML) of this machine.")
]
Timeline = Annotated[
    Path | None,
    typer.Option(
        "--timeline",
        help="Also write the first steps as a JSON file of trace events, which ui.perfetto.dev and "
        "chrome://tracing open.",
    ),
]
TimelineFigure = Annotated[
    Path | None, typer.Option("--timeline-figure", help="Also draw the first steps into this PNG.")
]
TimelineSteps = Annotated[
    int, typer.Option("--timeline-steps", help="Steps of both: the first so many.", min=1)
]


def check_timelines(timeline: Path | None, figure: Path | None) -> None:
    """Refuse, before any work, files of a timeline that could not be written.

    Raises:
        InputError: a folder cannot be written, a name is that of a folder, or both are one file.
    """
    from offsim.errors import InputError
    from offsim.files import check_writable

    asked = [path for path in (timeline, figure) if path is not None]
    for path in asked:
        if path.is_dir():
            raise InputError(f"{path}: cannot be written (it is a folder); choose another")
        check_writable(path.parent)
    if len({path.resolve() for path in asked}) < len(asked):
        raise InputError(f"{figure}: --timeline and --timeline-figure are one file; name two")


def about_run(policy: str, model: str, link_bytes_per_s: float | None) -> dict[str, str]:
    """What a timeline says of its run."""
    link = "plain" if link_bytes_per_s is None else f"{link_bytes_per_s / 1e6:g} MB/s"
    return {"policy": policy, "model": model, "link": link}


def write_timelines(
    record: "RunRecord",
    about: Mapping[str, str],
    timeline: Path | None,
    figure: Path | None,
    steps: int,
) -> None:
    """Write what was asked for of the first steps of a run, and say so on stderr.

    Args:
        record: of the run.
        about: what the JSON file says of it; `policy` is also in the title of the figure.
        timeline: JSON file, or None.
        figure: PNG file, or None.
        steps: how many.

    Raises:
        InputError: a file cannot be written.
    """
    if timeline:
        from offsim.record.timeline import write_timeline

        write_timeline(record, timeline, about, steps)
        typer.echo(f"{timeline}: written; ui.perfetto.dev opens it", err=True)
    if figure:
        from offsim.files import replacing
        from offsim.report.style import png
        from offsim.report.timeline import timeline_figure

        image = png(timeline_figure(record, (0, steps - 1), about["policy"]))
        with replacing(figure) as partial:
            partial.write_bytes(image)
        typer.echo(f"{figure}: written", err=True)
