"""From a SPEC to what each scenario is given: grids, lists and samples, each with each."""

from collections.abc import Iterator
from itertools import product
from math import floor, prod

import numpy as np
from scipy.stats import qmc

from offsim.errors import InputError
from offsim.study.sweep.spec import Block, Range, Sample, SweepSpec, Value, Values

Given = dict[str, Value]
"""Values of a scenario by field."""
MOST = 1_000_000
"""Scenarios of a SPEC: their number is the product of many, and one too much is soon there."""


def fields_of(spec: SweepSpec) -> list[str]:
    """All fields that some scenario is given, each once."""
    names = list(spec.fixed)
    for block in spec.vary:
        names += block.grid or ()
        names += [name for point in block.points or () for name in point]
        names += () if block.sample is None else block.sample.fields
    return list(dict.fromkeys(names))


def count_of(spec: SweepSpec) -> int:
    """How many scenarios there are, equal ones counted each.

    Raises:
        InputError: more than a sweep takes.
    """
    count = prod(_count(block) for block in spec.vary)
    if count > MOST:
        raise InputError(
            f"vary makes {count:,} scenarios, and a sweep takes {MOST:,} at most; vary less, or "
            "draw a sample"
        )
    return count


def given(spec: SweepSpec) -> Iterator[Given]:
    """What each scenario is given, in order: the last way in which they differ goes through first.

    The same SPEC gives the same, sample and all.
    """
    for parts in product(*(list(_parts(block)) for block in spec.vary)):
        together = dict(spec.fixed)
        for part in parts:
            together |= part
        yield together


def _count(block: Block) -> int:
    if block.grid is not None:
        return prod(map(len, block.grid.values()))
    return len(block.points or ()) if block.sample is None else block.sample.count


def _parts(block: Block) -> Iterator[Given]:
    if block.grid is not None:
        for values in product(*block.grid.values()):
            yield dict(zip(block.grid, values, strict=True))
    elif block.sample is not None:
        yield from _drawn(block.sample)
    else:
        yield from block.points or ()


def _drawn(sample: Sample) -> Iterator[Given]:
    width = len(sample.fields)
    rng = np.random.default_rng(sample.seed)
    if sample.method == "random":
        places = rng.random((sample.count, width))
    else:
        places = qmc.LatinHypercube(width, seed=rng).random(sample.count)
    for row in places.tolist():
        yield {
            name: _at(among, place)
            for (name, among), place in zip(sample.fields.items(), row, strict=True)
        }


def _at(among: Range | Values, place: float) -> Value:
    """The value at a place, 0 to below 1; numbers have six digits, so that people can read them."""
    if not isinstance(among, Range):
        return among[int(place * len(among))]
    if among.scale == "log":
        # One more than the highest, as every whole number has the room up to the next one.
        number = among.low * ((among.high + among.whole) / among.low) ** place
    else:
        number = among.low + (among.high + among.whole - among.low) * place
    return floor(min(number, among.high)) if among.whole else float(f"{number:.6g}")
