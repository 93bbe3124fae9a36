"""How fast the plain link of a calibration is: a copy on the CPU, or what its device does."""

from collections.abc import Mapping
from dataclasses import dataclass

from offsim.calibration.channels import SIDE_BY_SIDE, sweep_copies
from offsim.calibration.fit import figure
from offsim.calibration.measure import sizes_to, sweep_link
from offsim.calibration.schema import CopyFigures, SizedFigure
from offsim.runtime.cores import cores, pin
from offsim.runtime.devices import Device
from offsim.runtime.link import Link
from offsim.runtime.threads import single_compute_thread

Samples = Mapping[int, list[float]]
"""Seconds of copies, for each size in bytes."""


@dataclass(frozen=True)
class Copied:
    """Plain copies from host memory to a device.

    Attributes:
        link: those that a run without a pace makes, one at a time.
        others: from other memory, and side by side; nothing of a device without memory of its own.
    """

    link: Samples
    others: list[CopyFigures]


def sweep_device(device: Device, repeats: int, largest: int) -> Copied:
    """Copy to a device, from each kind of host memory, alone and side by side.

    Args:
        device: to which it goes.
        repeats: of each size.
        largest: bytes that the sweep reaches at least.

    Raises:
        InputError: there is not so much host memory of one kind.
    """
    sizes = sizes_to(largest)
    memories = device.memories(sizes[-1])
    with single_compute_thread():
        pin(cores()[1])
        if not memories:
            return Copied(sweep_link(Link().carry, repeats, largest), [])
        found = {
            (name, channels): sweep_copies(one.copy, one.memory, sizes, channels, repeats)
            for name, one in memories.items()
            for channels in (1, *SIDE_BY_SIDE)
        }
    link = found.pop((next(iter(memories)), 1))
    return Copied(link, [_figures(*how, samples) for how, samples in found.items()])


def _figures(memory: str, channels: int, samples: Samples) -> CopyFigures:
    copies = [SizedFigure(size=size, seconds=figure(s)) for size, s in samples.items()]
    return CopyFigures.model_validate({"memory": memory, "channels": channels, "copies": copies})
