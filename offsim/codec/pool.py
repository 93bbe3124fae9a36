"""Decoding on several cores, for host codecs that hold the GIL: worker processes.

A payload goes to a worker and its weights come back through shared memory; the pipe between them
carries only the blob's header and a word. Each worker has two arenas, so that it decodes one blob
while the pool copies the weights of the one before it out and the next payload in.
"""

import json
import math
import multiprocessing
import shutil
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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

    Raises:
        InputError: fewer than one worker.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError(f"a decode pool of {workers} workers; it takes at least 1")
        self._lock = threading.Lock()
        self._workers = [_Worker() for _ in range(workers)]
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

    def decode(self, blobs: Sequence[Blob]) -> list[torch.Tensor]:
        """Decode blobs, the largest first, each by the next worker that is free.

        Args:
            blobs: any number, of any codecs.

        Returns:
            Their tensors in the same order, in their stored dtypes and shapes and in memory of
            their own.

        Raises:
            CodecError: one could not be decoded, or its worker died over it; the message has its
                place in `blobs`, and of several the first is told. The pool remains usable.
            InputError: the pool is closed.
            RunError: a worker did not start.
        """
        with self._lock:
            if not self._end.alive:
                raise InputError("the decode pool is closed; open another")
            for place, worker in enumerate(self._workers):
                if not worker.is_alive():
                    self._replace(place)
            try:
                weights, failures = self._decode(blobs)
            except BaseException:  # Ctrl-C too: an answer to this call is no answer to the next
                _end_all(self._workers)
                raise
        if failures:
            place = min(failures)
            raise CodecError(f"blob {place} of {len(blobs)}: {failures[place]}")
        return [weights[place] for place in range(len(blobs))]

    def _decode(self, blobs: Sequence[Blob]) -> tuple[dict[int, torch.Tensor], dict[int, str]]:
        """Weights, and what went wrong, by place; nothing is handed out after a failure."""
        weights: dict[int, torch.Tensor] = {}
        failures: dict[int, str] = {}
        waiting = deque(sorted(range(len(blobs)), key=lambda place: -blobs[place].count))
        while True:
            while waiting and not failures:
                worker = min(self._workers, key=lambda worker: len(worker.jobs))
                if len(worker.jobs) == ARENAS:
                    break
                try:
                    worker.take(waiting[0], blobs[waiting[0]])
                except CodecError as error:
                    failures[waiting[0]] = str(error)
                waiting.popleft()
            busy: dict[Any, int] = {w.link: n for n, w in enumerate(self._workers) if w.jobs}
            if not busy:
                return weights, failures
            for link in connection.wait(list(busy)):
                worker = self._workers[busy[link]]
                try:
                    failure = worker.answer()
                except EOFError:
                    failures[worker.jobs[0]] = f"the worker died over it ({worker.obituary()})"
                    self._replace(busy[link])
                    continue
                if failure is None:
                    continue
                place = worker.jobs.popleft()
                if failure:
                    failures[place] = failure
                else:
                    weights[place] = worker.weights(blobs[place].header)
                worker.turn()

    def _replace(self, place: int) -> None:
        self._workers[place].end()
        self._workers[place] = _Worker()


class _Worker:
    """One process, as the pool sees it.

    Attributes:
        link: the pipe to it.
        jobs: places of the blobs that it has, the one in work first.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        self.jobs: deque[int] = deque()
        self._arenas: deque[_Arena] = deque(_Arena() for _ in range(ARENAS))
        self._ready = False
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        resource_tracker.ensure_running()  # starting it would let interrupts through again
        with _interrupts_held():
            self._process.start()
        theirs.close()

    def is_alive(self) -> bool:
        """Whether it can take a job."""
        return not self.link.closed and self._process.is_alive()

    def take(self, place: int, blob: Blob) -> None:
        """Copy a payload into the next free arena and tell the worker.

        Raises:
            CodecError: there is no memory for the payload and its weights.
        """
        arena = self._arenas[len(self.jobs)]
        size = len(blob.payload)
        start = _payload_start(blob.header)
        arena.grow(start + size)
        arena.bytes(start, size)[:] = np.frombuffer(blob.payload, np.uint8)
        self.jobs.append(place)
        job = {"arena": arena.name, "size": size, "header": blob.header.model_dump(mode="json")}
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
                    f"a decode worker did not start ({self.obituary()}); open the pool under "
                    'if __name__ == "__main__"'
                ) from error
            raise EOFError from error
        if not self._ready:
            self._ready = True
            return None
        return message.decode()

    def weights(self, header: Header) -> torch.Tensor:
        """The weights of the job that was just answered, copied out of its arena."""
        weights = torch.empty(header.shape, dtype=DTYPES[header.dtype])
        target = weights.view(-1).view(torch.uint8).numpy()
        target[:] = self._arenas[0].bytes(0, len(target))
        return weights

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
        for arena in self._arenas:
            arena.free()


class _Arena:
    """Shared memory of the pool for one blob: first its weights, then its payload."""

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


def _work(link: connection.Connection) -> None:
    """Decode what comes until the pipe closes; what a worker process runs."""
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
            link.send_bytes(_outcome(opened[name], job["header"], job["size"]).encode())


def _outcome(memory: SharedMemory, fields: dict[str, Any], size: int) -> str:
    """Decode a blob in place: an empty text, or what went wrong."""
    try:
        header = Header(**fields)
        start = _payload_start(header)
        blob = Blob(header, _view(memory, start, size).data)
        data = decode(blob).contiguous().view(-1).view(torch.uint8).numpy()
        _view(memory, 0, len(data))[:] = data
    except CodecError as error:
        return str(error)
    except Exception as error:  # whatever a foreign codec does
        return f"{type(error).__name__}: {error}"
    return ""


def _payload_start(header: Header) -> int:
    """Where the payload stands in the arena: after the weights, at a multiple of 64 bytes."""
    return -(-math.prod(header.shape) * DTYPES[header.dtype].itemsize // 64) * 64


def _view(memory: SharedMemory, start: int, size: int) -> npt.NDArray[np.uint8]:
    return np.ndarray(size, np.uint8, memory.buf, start)


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that is started within the block never sees Ctrl-C: its pool ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
