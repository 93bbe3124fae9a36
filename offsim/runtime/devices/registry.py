"""The devices by name."""

from collections.abc import Callable

from offsim.errors import InputError
from offsim.runtime.devices.base import Device
from offsim.runtime.devices.cpu import Cpu
from offsim.runtime.devices.cuda import Cuda

CPU: Device = Cpu()
"""Where everything runs if nothing is said."""
DEVICES: dict[str, Callable[[], Device]] = {"cpu": lambda: CPU, "cuda": Cuda}


def device_named(name: str) -> Device:
    """The device of this name.

    Raises:
        InputError: there is no such device, or it cannot be used here; what is missing is named.
    """
    if name not in DEVICES:
        raise InputError(f"no device is called {name!r}; there are {', '.join(DEVICES)}")
    return DEVICES[name]()
