"""Worker threads, and the one that computes."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

import numba
import numpy as np
import torch

from offsim.runtime.cores import cores, pin, run_promptly

SWITCH_S = 1e-4
Job = TypeVar("Job")


@numba.njit(nogil=True, cache=True)
def busy(rounds: int) -> int:
    """Keep the core busy for about 2 ns a round without the interpreter lock.

    Each round needs the one before it (xorshift, Marsaglia 2003), so no compiler can shorten it.
    """
    state = np.uint64(88172645463325252)
    for _ in range(rounds):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
    return int(state)


@contextmanager
def single_compute_thread() -> Iterator[None]:
    """Within the block, the calling thread computes alone on its own core.

    The interpreter lock is asked for after 0.1 ms instead of 5, or a thread that wakes up could
    wait longer for the lock than for the link.
    """
    threads = torch.get_num_threads()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(1)
    pin(cores()[0])
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        pin(before)
        torch.set_num_threads(threads)


class Jobs(Protocol[Job]):
    """Where jobs wait, such as a `SimpleQueue`."""

    def put(self, job: Job | None, /) -> None:
        """Queue a job; None ends a worker."""

    def get(self) -> Job | None:
        """The next job, once there is one; None for a worker that shall end."""


class Worker(threading.Thread, Generic[Job]):
    """A thread that serves one job at a time.

    Args:
        name: of the thread.
        serve: does a job; gets the job and the time at which it was taken, s.
        failed: told of a job whose `serve` raised.
        jobs: where they wait; several workers may share it. None: in order of arrival.
        prompt: whether it mostly sleeps, and shall have its core at once when it wakes.

    Attributes:
        serving: the job that it does, or None.
    """

    def __init__(
        self,
        name: str,
        serve: Callable[[Job, float], None],
        failed: Callable[[Job, Exception], None],
        jobs: Jobs[Job] | None = None,
        *,
        prompt: bool = False,
    ) -> None:
        super().__init__(name=f"offsim {name}", daemon=True)
        self._serve, self._failed, self._prompt = serve, failed, prompt
        self._jobs: Jobs[Job] = SimpleQueue() if jobs is None else jobs
        self.serving: Job | None = None
        self.start()

    def put(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread after the jobs that are queued, and wait for it; no other shares them."""
        self._jobs.put(None)
        self.join()

    def run(self) -> None:
        """Serve until stopped."""
        pin(cores()[1])
        if self._prompt:
            run_promptly()
        while (job := self._jobs.get()) is not None:
            self.serving = job
            try:
                self._serve(job, time.perf_counter())
            except Exception as error:  # reported to the thread that waits for the job
                self._failed(job, error)
            self.serving = None
