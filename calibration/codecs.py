"""Measure codecs over bounds on the CPU: `python calibration/codecs.py [--weights N]`."""

from dataclasses import asdict

import pandas as pd
import torch
import typer

from offsim.calibration.curve import curve
from offsim.codec import codec_named
from offsim.codec.bounds import Bound


def main(weights: int = 1 << 20, sigma: float = 0.02, lowest: int = -13) -> None:
    """Encode and decode bf16 Gaussian weights at bounds 2^lowest .. 2^-5; prints CSV, MEASURED."""
    torch.set_num_threads(1)
    values = (torch.randn(weights, generator=torch.Generator().manual_seed(0)) * sigma).bfloat16()
    codecs = [codec_named(name) for name in ("cuszp", "sz3")]
    points = curve(values, codecs, [Bound(2.0**power) for power in range(lowest, -4)])
    typer.echo(pd.DataFrame([asdict(point) for point in points]).to_csv(index=False))


if __name__ == "__main__":
    typer.run(main)
