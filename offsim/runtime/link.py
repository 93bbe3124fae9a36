"""The link between host and device on a machine that has none: a copy, or a wait."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
"""[bytes] uint8 in host memory."""
Room = TypeVar("Room")


class Link:
    """Carries bytes; several threads may, and each then has the whole pace for itself.

    Without a pace it copies, as fast as this machine can. With one it imitates the engine of a
    device that moves bytes by itself: the thread sleeps until bytes / pace has passed, and the
    bytes then count as arrived where they are. A copy of its own would take time of the core on
    which arrivals are decoded, and no such engine does. A thread wakes too late, by some tens of
    microseconds; the engine, which has a queue of its own, does not wait for it, and what waited
    already when it became free is carried from that moment on.

    Args:
        bytes_per_s: pace; None for plain copies.
    """

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self.bytes_per_s = bytes_per_s
        self._engines = threading.local()

    def carry(
        self, parts: Sequence[Bytes], since: float = math.inf
    ) -> tuple[Sequence[Bytes], None]:
        """Carry arrays [bytes] uint8, and return what has arrived.

        Args:
            parts: what is carried.
            since: when they began to wait, s on the run's clock; not before now by default.

        Returns:
            What has arrived; when, the thread that calls knows best: None.
        """
        if self.bytes_per_s is None:
            return [part.copy() for part in parts], None
        self._sleep(sum(part.nbytes for part in parts), self.bytes_per_s, since)
        return parts, None

    def room(self, parts: Sequence[Bytes]) -> Sequence[Bytes]:
        """Where arrays [bytes] uint8 arrive that are carried in chunks."""
        return [np.empty_like(part) for part in parts] if self.bytes_per_s is None else parts

    def carry_chunk(
        self,
        parts: Sequence[Bytes],
        into: Sequence[Bytes],
        begin: int,
        end: int,
        since: float = math.inf,
    ) -> None:
        """Carry one chunk of arrays [bytes] uint8 that are thought of as one.

        Args:
            parts: what is carried.
            into: the `room` for them.
            begin: first byte of the chunk, counted over all parts.
            end: first byte that no longer belongs to it.
            since: as for `carry`.
        """
        if self.bytes_per_s is not None:
            self._sleep(end - begin, self.bytes_per_s, since)
            return
        for part, to, here in chunk_of(parts, into, begin, end):
            to[here] = part[here]

    def _sleep(self, nbytes: int, bytes_per_s: float, since: float) -> None:
        """Until the engine of the calling thread is through with so many bytes."""
        free: float = getattr(self._engines, "free", -math.inf)
        now = time.perf_counter()
        self._engines.free = until = (free if since <= free else now) + nbytes / bytes_per_s
        time.sleep(max(0.0, until - now))


def chunk_of(
    parts: Sequence[Bytes], into: Sequence[Room], begin: int, end: int
) -> Iterator[tuple[Bytes, Room, slice]]:
    """The pieces of one chunk of arrays [bytes] uint8 that are thought of as one.

    Args:
        parts: the arrays.
        into: something for each of them.
        begin: first byte of the chunk, counted over all parts.
        end: first byte that no longer belongs to it.

    Yields:
        Each array, what there is for it, and which of its bytes belong to the chunk.
    """
    first = 0
    for part, to in zip(parts, into, strict=True):
        yield part, to, slice(max(begin - first, 0), max(end - first, 0))
        first += part.nbytes
