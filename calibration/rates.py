"""Measure bits a weight: `python calibration/rates.py > offsim/calibration/rates.csv`."""

import sys
from collections.abc import Iterable

import pandas as pd
import torch
import typer

from offsim.calibration.curve import entropy
from offsim.calibration.rates import CODECS, COLUMNS
from offsim.codec import codec_named, encode
from offsim.errors import InputError

SIGMA = 2.0**-6
"""Standard deviation of the weights; only the ratio of the bound to it matters."""
ROW = 2048
HALVES = range(-16, 3)
"""Bounds as powers of the square root of 2, in standard deviations."""


def measured_rates(count: int, halves: Iterable[int]) -> list[dict[str, str | float]]:
    """Bits a weight of bf16 Gaussian weights, with the default options of each codec.

    Bounds are powers of two, the cheapest there are: under another bound a codec may have to keep
    a tighter one, for at most one bit a weight more, so that the cast to bf16 does not break it.

    Args:
        count: weights, a multiple of 2048.
        halves: bounds as powers of the square root of 2, in standard deviations.

    Returns:
        A row for each codec and bound: bits a weight of the payload, and the entropy of a uniform
        quantiser under the same bound.
    """
    drawn = torch.randn(count // ROW, ROW, generator=torch.Generator().manual_seed(0))
    steps = list(halves)
    rows: list[dict[str, str | float]] = []
    for name in CODECS:
        for half in steps:
            # At an odd power the weights are wider by sqrt(2), so that the bound is one of two.
            sigma = SIGMA * 2.0 ** (0.5 * (half % 2))
            bound = SIGMA * 2.0 ** ((half + half % 2) // 2)
            weights = (drawn * sigma).bfloat16()
            blob = encode(weights, codec_named(name), bound)
            if blob.header.codec != name:
                raise InputError(f"{name} cannot keep {bound:g} on weights of deviation {sigma:g}")
            row = (name, bound / sigma, 16 / blob.ratio, entropy(weights, bound))
            rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def main(count: int = 1 << 21) -> None:
    """Encode bf16 Gaussian weights under bounds of 2^-8 to 2 standard deviations; prints CSV."""
    torch.set_num_threads(1)
    frame = pd.DataFrame(measured_rates(count, HALVES))
    frame.to_csv(sys.stdout, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    typer.run(main)
