"""Which device is measured or run on."""

from enum import StrEnum
from typing import Annotated

import typer

from offsim.errors import InputError


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


def require(device: Device) -> None:
    """Refuse a device that this version cannot measure.

    Raises:
        InputError: it is not the CPU.
    """
    if device is not Device.CPU:
        raise InputError(f"--device {device}: this version of offsim measures the cpu only")
