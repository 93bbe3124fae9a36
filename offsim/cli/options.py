"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Codec = Annotated[str, typer.Option(help="How host memory holds the experts: raw, cuszp, sz3.")]
Bound = Annotated[
    float, typer.Option(help="Largest error of a weight in its stored dtype (bf16); 0 for raw.")
]
Cache = Annotated[str, typer.Option(help="Expert cache: lru.")]
Slots = Annotated[int, typer.Option(help="Experts that each layer keeps on the device.", min=0)]
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
