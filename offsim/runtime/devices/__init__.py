"""What computes experts, and how they get there: the CPU in the place of a device, or CUDA."""

from offsim.runtime.devices.base import Arrived, Carrier, CopySource, Device, Kept, Stamps
from offsim.runtime.devices.cpu import Cpu
from offsim.runtime.devices.cuda import Cuda
from offsim.runtime.devices.registry import CPU, DEVICES, device_named

__all__ = [
    "CPU",
    "DEVICES",
    "Arrived",
    "Carrier",
    "CopySource",
    "Cpu",
    "Cuda",
    "Device",
    "Kept",
    "Stamps",
    "device_named",
]
