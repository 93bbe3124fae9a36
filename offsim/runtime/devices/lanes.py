"""A stream of a CUDA device, and when what was done on it began and ended."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from offsim.runtime.devices.base import Stamps

Result = TypeVar("Result")
RENEW_S = 10.0
"""Between two readings of the device's clock. CUDA gives the time between two events as a float32
of milliseconds, which has steps of 1 us after 10 s."""
READINGS = 3
"""Of which the one counts during which the least time passed on the host."""
PER_MS = 1e-3


class Lane:
    """A stream that one thread uses, and waits for after each thing that it asks for.

    Args:
        cuda: `torch.cuda`, or what has its streams and events.
        device: of the stream.

    Attributes:
        stream: of its own.
    """

    def __init__(self, cuda: Any, device: torch.device) -> None:
        self._cuda = cuda
        self.stream = cuda.Stream(device)
        self._begin, self._end, self._zero = (cuda.Event(enable_timing=True) for _ in range(3))
        self._origin = -float("inf")

    def run(self, work: Callable[[], Result]) -> tuple[Result, Stamps]:
        """Do something on the stream, and wait until it is done.

        Args:
            work: asks torch or CuPy for it, and waits for nothing.

        Returns:
            What `work` gave; and when the device began and ended, which is after the call and
            before the return also where the two clocks are a little apart.
        """
        if time.perf_counter() - self._origin > RENEW_S:
            self._read_clock()
        asked = time.perf_counter()
        with self._cuda.stream(self.stream):
            self._begin.record(self.stream)
            result = work()
            self._end.record(self.stream)
        self._end.synchronize()
        back = time.perf_counter()
        begin, end = (min(max(asked, self._at(one)), back) for one in (self._begin, self._end))
        return result, (begin, end)

    def _at(self, event: Any) -> float:
        """When an event was, s on the run's clock."""
        return self._origin + float(self._zero.elapsed_time(event)) * PER_MS

    def _read_clock(self) -> None:
        """Note an event, and between which two times of the run's clock it was: in their middle."""
        least = float("inf")
        for _ in range(READINGS):
            zero = self._cuda.Event(enable_timing=True)
            before = time.perf_counter()
            zero.record(self.stream)
            zero.synchronize()
            after = time.perf_counter()
            if after - before < least:
                least, self._zero, self._origin = after - before, zero, (before + after) / 2
