"""Decoding on several cores, for host codecs that hold the GIL: worker processes.

A payload goes to a worker and its weights come back through shared memory; the pipe between them
carries only headers and a word. Each worker has two arenas, so that it does one job while the pool
copies the weights of the one before it out and the payloads of the next in.
"""

import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from multiprocessing import connection, resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.blob import DTYPES, Blob, Header
from offsim.codec.bounded import decode
from offsim.errors import CodecError, InputError, RunError

ARENAS = 2
SHARED = Path("/dev/shm")
"""Where Linux keeps shared memory, often with a limit of its own."""


class DecodePool:
    """Worker processes that decode blobs.

    They start at once, in the background; the first `decode` waits until they have imported
    offsim, a few seconds. A program that opens a pool does so under `if __name__ == "__main__"`,
    since every worker imports its main module. Close the pool, or use it as a context manager.
    Threads may share a pool; it serves one call at a time.

    Args:
        workers: processes, at least 1; one a core is usual.
        cores: that they are bound to, where the system can; none: those of the thread that starts
            them.

    Raises:
        InputError: fewer than one worker.
    """

    def __init__(self, workers: int, cores: Collection[int] = ()) -> None:
        if workers < 1:
            raise InputError(f"a decode pool of {workers} workers; it takes at least 1")
        self._lock, self._cores = threading.Lock(), cores
        self._workers = [_Worker(cores) for _ in range(workers)]
        self._end = weakref.finalize(self, _end_all, self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and give the shared memory back; a second call does nothing.

        It waits for a call of another thread.
        """
        with self._lock:
            self._end()

    def is_alive(self) -> bool:
        """Whether every worker is; the next call of `decode` replaces those that died."""
        return all(worker.is_alive() for worker in self._workers)

    def decode(self, blobs: Sequence[Blob], together: int = 1) -> list[torch.Tensor]:
        """Decode blobs, the largest first, each by the next worker that is free.

        Args:
            blobs: any number, of any codecs.
            together: so many neighbours are one job, decoded by one worker one after the other:
                where blobs are small, handing over takes longer than decoding.

        Returns:
            Their tensors in the same order, in their stored dtypes and shapes and in memory of
            their own.

        Raises:
            CodecError: one could not be decoded, or its worker died over it; the message has its
                place in `blobs` (of a worker that died, the place of the first in its job), and of
                several the first is told. The pool remains usable.
            InputError: the pool is closed.
            RunError: a worker did not start.
        """
        with self._lock:
            if not self._end.alive:
                raise InputError("the decode pool is closed; open another")
            for place, worker in enumerate(self._workers):
                if not worker.is_alive():
                    worker.end()
                    self._workers[place] = _Worker(self._cores)
            jobs = [blobs[first : first + together] for first in range(0, len(blobs), together)]
            try:
                weights, failures = self._decode(jobs)
            except BaseException:  # Ctrl-C too: an answer to this call is no answer to the next
                _end_all(self._workers)
                raise
        if failures:
            first = min(failures)
            number, what = failures[first]
            raise CodecError(f"blob {first * together + number} of {len(blobs)}: {what}")
        return [tensor for place in range(len(jobs)) for tensor in weights[place]]

    def _decode(
        self, jobs: Sequence[Sequence[Blob]]
    ) -> tuple[dict[int, list[torch.Tensor]], dict[int, tuple[int, str]]]:
        """Weights, and over which blob what went wrong, by job; none is begun after a failure."""
        weights: dict[int, list[torch.Tensor]] = {}
        failures: dict[int, tuple[int, str]] = {}
        sizes = [sum(blob.count for blob in job) for job in jobs]
        waiting = deque(sorted(range(len(jobs)), key=lambda place: -sizes[place]))
        while True:
            while waiting and not failures:
                worker = min(self._workers, key=lambda worker: len(worker.jobs))
                if len(worker.jobs) == ARENAS:
                    break
                try:
                    worker.take(waiting[0], jobs[waiting[0]])
                except CodecError as error:
                    failures[waiting[0]] = (0, str(error))
                waiting.popleft()
            busy: dict[Any, int] = {w.link: n for n, w in enumerate(self._workers) if w.jobs}
            if not busy:
                return weights, failures
            # To wait for one alone is to read its answer, without another call of the system.
            for link in connection.wait(list(busy)) if len(busy) > 1 else list(busy):
                worker = self._workers[busy[link]]
                try:
                    failure = worker.answer()
                except EOFError:
                    what = f"the worker died over it ({worker.obituary()})"
                    failures[worker.jobs[0]] = (0, what)
                    worker.end()  # the next call replaces it
                    continue
                if failure is None:
                    continue
                place = worker.jobs.popleft()
                if failure:
                    number, what = json.loads(failure)
                    failures[place] = (number, what)
                else:
                    weights[place] = worker.weights([blob.header for blob in jobs[place]])
                worker.turn()


class _Worker:
    """One process, as the pool sees it.

    Attributes:
        link: the pipe to it.
        jobs: places of those that it has, the one in work first.
    """

    def __init__(self, cores: Collection[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        self.jobs: deque[int] = deque()
        self._arenas: deque[_Arena] = deque(_Arena() for _ in range(ARENAS))
        self._ready = False
        self._process = context.Process(target=_work, args=(theirs, cores), daemon=True)
        resource_tracker.ensure_running()  # starting it would let interrupts through again
        with interrupts_held():
            self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        """Whether it can take a job."""
        return not self.link.closed and self._process.is_alive()

    def take(self, place: int, blobs: Sequence[Blob]) -> None:
        """Copy payloads into the next free arena and tell the worker.

        Raises:
            CodecError: there is no memory for the payloads and their weights.
        """
        arena = self._arenas[len(self.jobs)]
        sizes = [blob.nbytes for blob in blobs]
        starts = _starts([*(_weight_bytes(blob.header) for blob in blobs), *sizes])
        arena.grow(starts[-1])
        for start, blob in zip(starts[len(blobs) :], blobs, strict=False):
            arena.bytes(start, blob.nbytes)[:] = np.frombuffer(blob.payload, np.uint8)
        self.jobs.append(place)
        headers = [blob.header.model_dump(mode="json") for blob in blobs]
        job = {"arena": arena.name, "sizes": sizes, "headers": headers}
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer will be its end
            self.link.send_bytes(json.dumps(job).encode())

    def answer(self) -> str | None:
        """What went wrong with the first job, empty for nothing; None for the word that it is up.

        Raises:
            EOFError: it died.
            RunError: it died before it was up.
        """
        try:
            message = self.link.recv_bytes()
        except (EOFError, OSError) as error:
            if not self._ready:
                raise RunError(
                    f"a decode worker did not start ({self.obituary()}); run the program under "
                    'if __name__ == "__main__"'
                ) from error
            raise EOFError from error
        if not self._ready:
            self._ready = True
            return None
        return message.decode()

    def weights(self, headers: Sequence[Header]) -> list[torch.Tensor]:
        """The weights of the job that was just answered, copied out of its arena."""
        tensors = [torch.empty(header.shape, dtype=DTYPES[header.dtype]) for header in headers]
        starts = _starts(map(_weight_bytes, headers))
        for start, tensor in zip(starts, tensors, strict=False):
            target = tensor.view(-1).view(torch.uint8).numpy()
            target[:] = self._arenas[0].bytes(start, len(target))
        return tensors

    def turn(self) -> None:
        """Let the arena of the job that was just answered be used again."""
        self._arenas.rotate(-1)

    def obituary(self) -> str:
        """How the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def end(self) -> None:
        """Kill the process, which has nothing to save, and give its arenas back."""
        self._process.kill()
        self._process.join()
        self.link.close()
        self.jobs.clear()
        for arena in self._arenas:
            arena.free()


class _Arena:
    """Shared memory of the pool for one job: first the weights, then the payloads."""

    def __init__(self) -> None:
        self._memory: SharedMemory | None = None

    @property
    def name(self) -> str:
        """What a worker opens it by."""
        return self._memory.name if self._memory else ""

    def grow(self, size: int) -> None:
        """Make it at least as large, without its content.

        Raises:
            CodecError: there is not so much shared memory.
        """
        if self._memory and self._memory.size >= size:
            return
        self.free()
        free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else math.inf
        try:
            # Asked before: memory that is not there would end the process that touches it.
            if size > free:
                raise MemoryError(f"{free} are free")
            self._memory = SharedMemory(create=True, size=max(size, 1))
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise CodecError(f"no shared memory of {size} bytes ({error})") from error

    def bytes(self, start: int, size: int) -> npt.NDArray[np.uint8]:
        """A view of a part; it must be gone before the arena grows or is freed."""
        return _view(self._memory, start, size) if self._memory else np.empty(0, np.uint8)

    def free(self) -> None:
        """Give the memory back."""
        if self._memory:
            self._memory.close()
            self._memory.unlink()
            self._memory = None


def _work(link: connection.Connection, cores: Collection[int]) -> None:
    """Decode what comes until the pipe closes; what a worker process runs."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(1)
    opened: dict[str, SharedMemory] = {}
    link.send_bytes(b"")
    with suppress(EOFError):
        while True:
            job = json.loads(link.recv_bytes())
            name = job["arena"]
            if name not in opened:
                while len(opened) >= ARENAS:  # the oldest has grown or soon will
                    opened.pop(next(iter(opened))).close()
                opened[name] = SharedMemory(name)
            link.send_bytes(_outcome(opened[name], job["headers"], job["sizes"]).encode())


def _outcome(memory: SharedMemory, fields: list[dict[str, Any]], sizes: list[int]) -> str:
    """Decode blobs in place: an empty text, or the number of one and what went wrong, as JSON."""
    headers = [Header(**one) for one in fields]
    starts = _starts([*map(_weight_bytes, headers), *sizes])
    for number, (header, size) in enumerate(zip(headers, sizes, strict=True)):
        try:
            blob = Blob(header, _view(memory, starts[len(headers) + number], size).data)
            data = decode(blob).contiguous().view(-1).view(torch.uint8).numpy()
            _view(memory, starts[number], len(data))[:] = data
        except CodecError as error:
            return json.dumps([number, str(error)])
        except Exception as error:  # whatever a foreign codec does
            return json.dumps([number, f"{type(error).__name__}: {error}"])
    return ""


def _weight_bytes(header: Header) -> int:
    return math.prod(header.shape) * DTYPES[header.dtype].itemsize


def _starts(sizes: Iterable[int]) -> list[int]:
    """Where parts of these sizes stand in an arena, at multiples of 64 bytes, and the end."""
    return list(accumulate((-(-size // 64) * 64 for size in sizes), initial=0))


def _view(memory: SharedMemory, start: int, size: int) -> npt.NDArray[np.uint8]:
    return np.ndarray(size, np.uint8, memory.buf, start)


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """A process that is started within the block never sees Ctrl-C: its pool ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
