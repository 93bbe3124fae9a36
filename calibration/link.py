"""Measure the link of this machine and print it: `python calibration/link.py [--device cpu]`."""

import numpy as np
import typer

from offsim.calibration.measure import measure_link, timed
from offsim.cli.devices import Device, require
from offsim.runtime.cores import cores, pin
from offsim.runtime.link import Link
from offsim.runtime.threads import single_compute_thread

BYTES, PACE = 64_000, 40e6


def main(device: Device = Device.CPU, repeats: int = 30) -> None:
    """Sweep copies over sizes and paces; prints figures labelled MEASURED."""
    require(device)
    paced = Link(PACE)
    array = np.ones(BYTES, np.uint8)
    with single_compute_thread():
        pin(cores()[1])
        overshoot = [s - BYTES / PACE for s in timed(lambda: paced.carry([array]), repeats)]
        figures = measure_link(Link().carry, repeats, overshoot)
    typer.echo(figures.model_dump_json(indent=2))


if __name__ == "__main__":
    typer.run(main)
