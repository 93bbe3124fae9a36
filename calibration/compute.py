"""Measure compute and hand-overs: `python calibration/compute.py [--device cpu]`."""

import typer

from offsim.cli.devices import Device
from offsim.codec import codec_named
from offsim.runtime.devices import device_named
from offsim.study.calibrate import FULL, SEED
from offsim.study.compute_sampler import ComputeSampler
from offsim.study.study import embedded


def main(device: Device = Device.CPU) -> None:
    """Run the embedded model with all and with none of its experts resident; prints MEASURED."""
    subject = embedded(device_named(device))
    raw = subject.store(codec_named("raw"), 0.0)
    sampler = ComputeSampler(subject, raw, FULL.tokens)
    for number in range(FULL.rounds):
        sampler.round(FULL.requests, SEED + number)
    compute, handover = sampler.figures()
    typer.echo(compute.model_dump_json(indent=2))
    typer.echo(handover.model_dump_json(indent=2))


if __name__ == "__main__":
    typer.run(main)
