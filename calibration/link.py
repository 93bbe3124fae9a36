"""Measure the link of this machine and print it: `python calibration/link.py [--device cpu]`."""

import numpy as np
import typer

from offsim.calibration.measure import COPY_SIZES, link_figures, timed
from offsim.cli.devices import Device
from offsim.runtime.cores import cores, pin
from offsim.runtime.devices import device_named
from offsim.runtime.threads import single_compute_thread
from offsim.study.transfers import sweep_device

BYTES, PACE = 64_000, 40e6


def main(device: Device = Device.CPU, repeats: int = 30) -> None:
    """Sweep copies over sizes and paces; prints figures labelled MEASURED.

    On `cuda`, a line each follows for pageable memory and for copies side by side.
    """
    computes = device_named(device)
    paced = computes.link(PACE)
    array = np.ones(BYTES, np.uint8)
    stamps = []
    with single_compute_thread():
        pin(cores()[1])
        seconds = timed(lambda: stamps.append(paced.carry([array])[1]), repeats)
    # A device knows better than the thread that waited for it.
    known = [end - begin for begin, end in filter(None, stamps[-repeats:])]
    overshoot = [s - BYTES / PACE for s in known or seconds]
    copied = sweep_device(computes, repeats, COPY_SIZES[-1])
    typer.echo(link_figures(copied.link, overshoot).model_dump_json(indent=2))
    for one in copied.others:
        typer.echo(one.model_dump_json())


if __name__ == "__main__":
    typer.run(main)
