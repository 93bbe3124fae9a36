"""Numbers of the cuSZp stream that everything which reads or writes one shares."""

import numpy as np

from offsim.errors import InputError

MODES = {"fixed": 0, "plain": 1, "outlier": 2}
"""Numbers of the modes, as the official library has them."""
BLOCK = 32
SUPERBLOCK_BLOCKS = 1024
MOST_BLOCK_BYTES = 128
"""A block of 31 planes: 4 + 4 * 31."""


def blocks_of(count: int) -> int:
    """Blocks with at least one of so many values."""
    return -(-count // BLOCK)


def superblocks_of(count: int) -> int:
    """Superblocks with at least one of so many values."""
    return -(-count // (BLOCK * SUPERBLOCK_BLOCKS))


def rate_area_of(count: int) -> int:
    """Bytes at the start of a stream of so many values: a rate a block, in whole superblocks."""
    return superblocks_of(count) * SUPERBLOCK_BLOCKS


def capacity_of(count: int) -> int:
    """Bytes that a stream of so many values can need."""
    return rate_area_of(count) + MOST_BLOCK_BYTES * blocks_of(count)


def number_of(mode: str) -> int:
    """The number of a mode.

    Raises:
        InputError: no such mode.
    """
    if mode not in MODES:
        raise InputError(f"cuszp has no mode {mode!r}; it has {', '.join(MODES)}")
    return MODES[mode]


def inverse_of(bound: float) -> np.float32:
    """float32(0.5 / bound), what quantisers multiply with, in 1 / the unit of the values.

    Raises:
        InputError: the bound is not a positive float32 whose half inverse is finite.
    """
    with np.errstate(over="ignore", divide="ignore", under="ignore"):
        step = np.float32(bound)
        inverse = np.float32(0.5) / step
    if not (0 < step < np.inf and np.isfinite(inverse)):
        raise InputError(f"cuszp: the bound {bound:g} is not a usable positive float32")
    return inverse
