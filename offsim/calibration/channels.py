"""Plain copies from host memory to a device, one at a time and side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from offsim.calibration.measure import Bytes, parts_by_size

SIDE_BY_SIDE = (2, 4)
"""How many copies there are at a time, beside one alone."""
Copy = Callable[[Sequence[Bytes]], tuple[float, float]]
"""Copies arrays [bytes] uint8, waits, and says when that began and ended, s."""


def sweep_copies(
    copy: Copy, memory: Bytes, sizes: Sequence[int], channels: int, repeats: int
) -> dict[int, list[float]]:
    """Seconds until copies that began together are there, [repeats] for each size in bytes.

    Each is asked for by a thread of its own, as the channels of a run are. They begin as nearly
    together as threads wake, which takes tens of microseconds: more than a small copy.

    Args:
        copy: see there.
        memory: [bytes] uint8, at least the largest size; all copy the same of it.
        sizes: of each copy.
        channels: copies at a time.
        repeats: of each size; sizes are interleaved, so that a drift of the machine hits all.
    """
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    parts = parts_by_size(memory, sizes)
    barrier = Barrier(channels)

    def one(arrays: Sequence[Bytes]) -> tuple[float, float]:
        barrier.wait()
        return copy(arrays)

    with ThreadPoolExecutor(channels, "offsim channel") as threads:
        for _ in range(repeats):
            for size, arrays in parts.items():
                for kept in ([], samples[size]):  # the first warms up
                    begun, ended = zip(*threads.map(one, [arrays] * channels), strict=True)
                    kept.append(max(ended) - min(begun))
    return samples
