"""Which device is measured."""

from enum import StrEnum

from offsim.errors import InputError


class Device(StrEnum):
    """A device that offsim can measure or run on."""

    CPU = "cpu"
    CUDA = "cuda"


def require(device: Device) -> None:
    """Refuse a device that this version cannot measure.

    Raises:
        InputError: it is not the CPU.
    """
    if device is not Device.CPU:
        raise InputError(f"--device {device}: this version of offsim measures the cpu only")
