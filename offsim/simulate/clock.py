"""The clock of both engines: whole picoseconds, so that equal means equal.

Sums of integers do not depend on their order, and a stretch of time is the same wherever it begins.
The functions here are plain Python for the SimPy engine; the fast engine compiles the same ones.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PS = 10**12
"""Picoseconds in a second."""
RATE_BITS = 14
"""A slowdown is a whole number of 1/2^14: a piece of work may take 2^63 / 2^14 ps, 560 s."""
UNDISTURBED = 1 << RATE_BITS
LONGEST_PS = 500 * PS
"""No single piece of work that something may slow down takes longer."""
LATEST_PS = 4_000_000 * PS
"""A simulation is over by then: with hand-overs and slowdowns the clock holds twice that."""
Ints = npt.NDArray[np.int64]


def whole(seconds: float) -> int:
    """Seconds as picoseconds, rounded."""
    return round(seconds * PS)


def rate_of(slowdown: float) -> int:
    """How many times longer work takes, in units of 1/2^RATE_BITS."""
    return round(slowdown * (1 << RATE_BITS))


def stretched(left: int, rate: int) -> int:
    """How long `left` ps of work take at a rate, ps, rounded up."""
    return left if rate == UNDISTURBED else -((-left * rate) >> RATE_BITS)


def served(elapsed: int, rate: int) -> int:
    """How much work is done in `elapsed` ps at a rate, ps, rounded down.

    `served(stretched(w, r), r) >= w`: what was to end by a time has ended by it.
    """
    return elapsed if rate == UNDISTURBED else (elapsed << RATE_BITS) // rate


def coldness(
    before: int,
    idle: int,
    idle_points: Ints | Sequence[int],
    extra_points: Ints | Sequence[int],
    still_cold: float,
) -> int:
    """What compute loses to cold caches after a layer, ps.

    Args:
        before: what it lost after the layer before, ps.
        idle: how long it stood idle in this one, ps.
        idle_points: [points] ps, rising from 0.
        extra_points: [points] ps lost after each; linear between them, constant beyond.
        still_cold: share of the loss that is left a layer later.
    """
    lost = 0
    last = len(idle_points) - 1
    if idle >= idle_points[last]:
        lost = extra_points[last] if idle else 0
    else:
        at = 0
        while idle >= idle_points[at + 1]:
            at += 1
        share = (idle - idle_points[at]) / (idle_points[at + 1] - idle_points[at])
        lost = extra_points[at] + int((extra_points[at + 1] - extra_points[at]) * share)
    return max(int(still_cold * before), lost)
