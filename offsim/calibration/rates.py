"""How many bits a weight takes under a bound, from one measured table of Gaussian weights.

The table is `rates.csv`, made by `python calibration/rates.py`. What it gives for a model is
ESTIMATED: weights of a real model are close to Gaussian and not Gaussian.
"""

import csv
import math
from functools import cache
from pathlib import Path

import numpy as np

from offsim.errors import FormatError, InputError
from offsim.files import read_text

TABLE = Path(__file__).with_name("rates.csv")
COLUMNS = ("codec", "bound_of_sigma", "bits_per_weight", "ideal_bits")
CODECS = ("cuszp", "sz3")


def bits_per_weight(codec: str, bound: float, sigma: float) -> float:
    """Bits a weight under a bound: linear between the measured ones in log2(bound / sigma).

    The entropy of a finely quantised Gaussian is log2(sigma / bound) plus a constant (Cover and
    Thomas, Elements of Information Theory, theorem 8.3.1), so a line is close. The measured
    bounds were powers of two; another can cost up to one bit more (docs/codecs.md).

    Args:
        codec: `cuszp` or `sz3`, with the default options.
        bound: absolute, > 0, unit of the weights.
        sigma: standard deviation of the weights, > 0, same unit.

    Raises:
        InputError: another codec, or a bound outside the table.
    """
    table = read_rates()
    if codec not in table:
        raise InputError(f"no rates are known for codec {codec}; there are {', '.join(table)}")
    if not (math.isfinite(bound) and bound > 0 and math.isfinite(sigma) and sigma > 0):
        raise InputError(f"a bound and a sigma are positive numbers, not {bound:g} and {sigma:g}")
    ratios, bits = table[codec]
    ratio = bound / sigma
    if not ratios[0] * (1 - 1e-6) <= ratio <= ratios[-1] * (1 + 1e-6):
        raise InputError(
            f"bound {bound:g} is {ratio:.3g} standard deviations of weights with sigma {sigma:g}; "
            f"rates are known from {ratios[0]:.3g} to {ratios[-1]:.3g}"
        )
    return float(np.interp(math.log2(ratio), np.log2(ratios), bits))


@cache
def read_rates(path: Path = TABLE) -> dict[str, tuple[list[float], list[float]]]:
    """Bounds in standard deviations, rising, and bits a weight, of each codec.

    Raises:
        InputError: the file cannot be read.
        FormatError: not such a table.
    """
    table: dict[str, tuple[list[float], list[float]]] = {}
    reader = csv.DictReader(read_text(path).splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise FormatError(f"{path}: the columns are not {', '.join(COLUMNS)}")
    for row in reader:
        ratios, bits = table.setdefault(row["codec"], ([], []))
        try:
            ratios.append(float(row["bound_of_sigma"]))
            bits.append(float(row["bits_per_weight"]))
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}: line {reader.line_num} has no numbers") from error
    return table
