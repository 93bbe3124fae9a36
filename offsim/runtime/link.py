"""The link between host and device on a machine that has none: a copy, or a wait."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Link:
    """Carries bytes; several threads may, and each then has the whole pace for itself.

    Without a pace it copies, as fast as this machine can. With one it imitates the engine of a
    device that moves bytes by itself: the thread sleeps until bytes / pace has passed, and the
    bytes then count as arrived where they are. A copy of its own would take time of the core on
    which arrivals are decoded, and no such engine does.

    Args:
        bytes_per_s: pace; None for plain copies.
    """

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self.bytes_per_s = bytes_per_s

    def carry(self, parts: Sequence[Bytes]) -> Sequence[Bytes]:
        """Carry arrays [bytes] uint8, and return what has arrived."""
        if self.bytes_per_s is None:
            return [part.copy() for part in parts]
        self._sleep(sum(part.nbytes for part in parts), self.bytes_per_s)
        return parts

    def room(self, parts: Sequence[Bytes]) -> Sequence[Bytes]:
        """Where arrays [bytes] uint8 arrive that are carried in chunks."""
        return [np.empty_like(part) for part in parts] if self.bytes_per_s is None else parts

    def carry_chunk(
        self, parts: Sequence[Bytes], into: Sequence[Bytes], begin: int, end: int
    ) -> None:
        """Carry one chunk of arrays [bytes] uint8 that are thought of as one.

        Args:
            parts: what is carried.
            into: the `room` for them.
            begin: first byte of the chunk, counted over all parts.
            end: first byte that no longer belongs to it.
        """
        if self.bytes_per_s is not None:
            self._sleep(end - begin, self.bytes_per_s)
            return
        first = 0
        for part, to in zip(parts, into, strict=True):
            here = slice(max(begin - first, 0), max(end - first, 0))
            to[here] = part[here]
            first += part.nbytes

    @staticmethod
    def _sleep(nbytes: int, bytes_per_s: float) -> None:
        time.sleep(nbytes / bytes_per_s)
