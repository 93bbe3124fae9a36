"""Measure the link of this machine and print it: `python calibration/link.py [--device cpu]`."""

import typer

from offsim.calibration.measure import measure_link
from offsim.cli.devices import Device, require
from offsim.runtime.link import Link
from offsim.runtime.threads import cores, pin, single_compute_thread


def main(device: Device = Device.CPU, repeats: int = 30) -> None:
    """Sweep copies over sizes and paces; prints figures labelled MEASURED."""
    require(device)
    with single_compute_thread():
        pin(cores()[1])
        figures = measure_link(lambda pace: Link(pace).copy, repeats)
    typer.echo(figures.model_dump_json(indent=2))


if __name__ == "__main__":
    typer.run(main)
