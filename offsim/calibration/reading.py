"""What a calibration says between and beyond its points."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from offsim.calibration.schema import CoolingPoint, ForesightFigures, SizedFigure


def at_size(table: list[SizedFigure], size: int) -> float:
    """Seconds at a size, linear between the measured ones, proportional beyond the largest."""
    return float(at_sizes(table, np.array([size]))[0])


def sizing(table: list[SizedFigure]) -> Callable[[int], float]:
    """`at_size` of a table, for the same few sizes again and again."""
    return cache(partial(at_size, table))


def at_sizes(table: list[SizedFigure], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The same for each of several sizes, [sizes] s."""
    known = [point.size for point in table]
    seconds = [point.seconds.value for point in table]
    between = np.interp(sizes, known, seconds)
    if not known[-1]:
        return between
    return np.where(sizes > known[-1], seconds[-1] * sizes / known[-1], between)


def extra_after(cooling: list[CoolingPoint], idle_s: float) -> float:
    """Seconds lost after an idle time: linear from (0, 0) through the points, then constant."""
    idle = [0.0, *(point.idle_s for point in cooling)]
    extra = [0.0, *(point.extra.value for point in cooling)]
    return float(np.interp(idle_s, idle, extra))


def nearest_foresight(
    foresight: Sequence[ForesightFigures], prefetch: str, distance: int
) -> ForesightFigures | None:
    """What is known of a prefetcher, at the distance that is nearest; None where nothing is."""
    known = (one for one in foresight if one.prefetch == prefetch)
    return min(known, key=lambda one: abs(one.distance - distance), default=None)


def foresight_s(
    foresight: Sequence[ForesightFigures],
    prefetch: str,
    distance: int,
    sizes: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """What a prefetcher adds to each lookup of steps of so many tokens, [sizes] s.

    In proportion to its distance where another one was measured; 0 where none was.
    """
    nearest = nearest_foresight(foresight, prefetch, distance)
    if nearest is None:
        return np.zeros(len(sizes))
    return at_sizes(nearest.seconds, sizes) * distance / nearest.distance
