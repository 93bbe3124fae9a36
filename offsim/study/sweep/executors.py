"""Who simulates: this process, processes of this machine, or the workers of a Dask scheduler."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.work import provide, withdraw

AHEAD = 2
"""Batches that wait for each process, so that it has the next one at once."""


@dataclass(frozen=True)
class Crew:
    """Workers that were provided with the inputs.

    Attributes:
        executor: takes `offsim.study.sweep.work.answers`.
        workers: how many work side by side, about.
        at_once: batches that it is given at a time.
        name: for people.
    """

    executor: Executor
    workers: int
    at_once: int
    name: str


Hire = Callable[[Inputs], AbstractContextManager[Crew]]
"""Who gets a crew for some inputs, and lets it go."""


def in_process() -> Hire:
    """This process itself, one batch after the other."""
    return _here


def processes(jobs: int | None = None) -> Hire:
    """Fresh processes of this machine.

    Args:
        jobs: how many; None for one a core.
    """
    there = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return partial(_processes, jobs or len(there) or os.cpu_count() or 1)


class _Here(Executor):
    """Does at once what is asked for."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _here(inputs: Inputs) -> Iterator[Crew]:
    provide(inputs)
    try:
        yield Crew(_Here(), 1, 1, "this process")
    finally:
        withdraw(inputs.digest)


@contextmanager
def _processes(jobs: int, inputs: Inputs) -> Iterator[Crew]:
    # A forked process would have the locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(inputs,))
    try:
        yield Crew(pool, jobs, AHEAD * jobs, f"{jobs} processes")
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(inputs: Inputs) -> None:
    """A process begins: Ctrl-C is for who started it, and it ends with who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    provide(inputs)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody waits for it any more, and its queue never ends
