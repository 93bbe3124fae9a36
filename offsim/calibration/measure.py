"""Measurements that need no model run: the link, the codecs, decoding beside compute."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from offsim.calibration.fit import figure, line
from offsim.calibration.schema import Figure, LinkFigures, SizedFigure

NEAR = 1.5
"""Sizes further apart than this factor take different times."""
Bytes = npt.NDArray[np.uint8]
COPY_SIZES = tuple(1 << power for power in range(12, 23))
"""Bytes of the link sweep: 4 KiB to 4 MiB."""


def timed(work: Callable[[], object], repeats: int, warm_up: int = 2) -> list[float]:
    """Seconds of each of `repeats` calls, after some that are not counted."""
    for _ in range(warm_up):
        work()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return samples


def measure_link(
    copy: Callable[[list[Bytes]], object],
    repeats: int,
    overshoot: Sequence[float],
    largest: int = COPY_SIZES[-1],
) -> LinkFigures:
    """Sweep the plain link over sizes; arguments as of `sweep_link` and `link_figures`."""
    return link_figures(sweep_link(copy, repeats, largest), overshoot)


def sweep_link(
    copy: Callable[[list[Bytes]], object], repeats: int, largest: int = COPY_SIZES[-1]
) -> dict[int, list[float]]:
    """Seconds of plain copies, [repeats] for each size in bytes.

    Args:
        copy: copies arrays [bytes] uint8 over the link.
        repeats: of each size; sizes are interleaved, so that a drift of the machine hits all.
        largest: bytes that the sweep reaches at least. Beyond 4 MiB a size is three arrays, as an
            expert is: memory for one that large is given out anew at each copy.
    """
    sizes = sizes_to(largest)
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    parts = parts_by_size(np.ones(sizes[-1], np.uint8), sizes)
    for _ in range(repeats):
        for size, arrays in parts.items():
            samples[size] += timed(lambda a=arrays: copy(a), 1, warm_up=1)  # type: ignore[misc]
    return samples


def sizes_to(largest: int) -> list[int]:
    """Bytes of a sweep that reaches so many at least, rising."""
    sizes = list(COPY_SIZES)
    while sizes[-1] < largest:
        sizes.append(2 * sizes[-1])
    return sizes


def parts_by_size(whole: Bytes, sizes: Sequence[int]) -> dict[int, list[Bytes]]:
    """For each size the first so many bytes [bytes] uint8, as `sweep_link` divides them."""
    return {s: np.array_split(whole[:s], 1 if s in COPY_SIZES else 3) for s in sizes}


def link_figures(samples: Mapping[int, Sequence[float]], overshoot: Sequence[float]) -> LinkFigures:
    """The figures of a link.

    Args:
        samples: of plain copies, s, for each size in bytes.
        overshoot: by how much paced transfers of a run took longer than bytes / pace, s.
    """
    copies = [SizedFigure(size=size, seconds=figure(s)) for size, s in samples.items()]
    latency, bandwidth, residual = line(copies)
    return LinkFigures(
        label="MEASURED",
        copies=copies,
        latency_s=latency,
        bytes_per_s=bandwidth,
        residual=residual,
        overshoot_s=figure(overshoot),
    )


def by_size(samples: Sequence[tuple[int, float]], enough: int = 12) -> list[SizedFigure]:
    """Group (size, seconds) samples into a table.

    Neighbouring sizes, no more than NEAR times apart, are put together until each group has
    `enough` samples; a group stands at its mean size. What is left over goes to the group before
    if it is as near, and else stands alone.
    """
    by: dict[int, list[tuple[int, float]]] = {}
    for size, seconds in samples:
        by.setdefault(size, []).append((size, seconds))
    groups: list[list[tuple[int, float]]] = []
    for size in sorted(by):
        last = groups[-1] if groups else []
        if last and len(last) < enough and size <= NEAR * last[0][0]:
            last += by[size]
        else:
            groups.append(by[size])
    if (
        len(groups) > 1
        and len(groups[-1]) < enough
        and groups[-1][-1][0] <= NEAR * groups[-2][0][0]
    ):
        groups[-2:] = [groups[-2] + groups[-1]]
    return [
        SizedFigure(size=round(np.mean([s for s, _ in g])), seconds=_figure_of(g)) for g in groups
    ]


def _figure_of(group: list[tuple[int, float]]) -> Figure:
    return figure([seconds for _, seconds in group])
