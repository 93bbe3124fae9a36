"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

NoBand = Annotated[
    bool,
    typer.Option(
        "--no-band", help="Leave out the 90 % band, for which the trace is timed 40 times more."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
TraceFile = Annotated[Path, typer.Option("--trace", help="Trace file.")]
Figure = Annotated[Path | None, typer.Option(help="Also draw it into this PNG.")]
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
PREFETCHING = "Prefetching"
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
SEED = 5
"""Of the prompts of the embedded model where nothing is said."""
Seed = Annotated[
    int | None,
    typer.Option(
        help=f"Of the prompts that are drawn for the embedded model; default: {SEED}. With "
        "--sample, of the tokens; default: 0."
    ),
]
CalibrationFile = Annotated[
    Path, typer.Option("--calibration", help="Calibration file (YAML) of this machine.")
]
