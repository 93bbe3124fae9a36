"""The link between host and device on a machine that has none: a copy, paced if wanted."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Link:
    """Copies bytes; several threads may, and each then has the whole pace for itself.

    Args:
        bytes_per_s: a transfer takes at least bytes / bytes_per_s; None for the plain copy.
    """

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self.bytes_per_s = bytes_per_s

    def copy(self, parts: Sequence[Bytes]) -> list[Bytes]:
        """Copy arrays [bytes] uint8 to fresh memory and wait out the pace of their sum."""
        start = time.perf_counter()
        copies = [part.copy() for part in parts]
        self._wait_out(start, parts)
        return copies

    def copy_range(
        self, parts: Sequence[Bytes], into: Sequence[Bytes], begin: int, end: int
    ) -> None:
        """Copy one chunk of arrays [bytes] uint8 that are thought of as one, and wait out its pace.

        Args:
            parts: what is copied from.
            into: arrays of the same sizes.
            begin: first byte of the chunk, counted over all parts.
            end: first byte that no longer belongs to it.
        """
        start = time.perf_counter()
        moved, first = [], 0
        for part, to in zip(parts, into, strict=True):
            here = slice(max(begin - first, 0), max(end - first, 0))
            to[here] = part[here]
            moved.append(part[here])
            first += part.nbytes
        self._wait_out(start, moved)

    def _wait_out(self, start: float, parts: Sequence[Bytes]) -> None:
        """Sleep until a transfer that began at `start`, s, has taken as long as its pace says."""
        if self.bytes_per_s is not None:
            nbytes = sum(part.nbytes for part in parts)
            left = start + nbytes / self.bytes_per_s - time.perf_counter()
            if left > 0:
                time.sleep(left)
