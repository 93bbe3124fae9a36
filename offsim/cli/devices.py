"""Which device is measured or run on."""

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    """A device that offsim can measure or run on."""

    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[
    Device,
    typer.Option(
        "--device", help="What computes: the CPU in the place of a device, or a CUDA device."
    ),
]
