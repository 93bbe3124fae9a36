"""Worker processes that are spoken to in JSON, for work on every expert of a large checkpoint.

They are forked from one server process that has imported everything, where the system can, so that
they are up at once and share the memory of the libraries. What they do is named, not handed over:
the program that starts them need not import it.
"""

import ctypes
import json
import multiprocessing
import platform
import signal
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing import connection, resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Self

import torch

from offsim.codec.pool import interrupts_held
from offsim.errors import InputError, OffsimError, RunError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
NEVER = -1
"""As a threshold, the largest there is."""
OWN_PAGES = 1 << 25
"""Bytes above which memory is had from the system, and given back to it: the most that glibc takes
for this threshold."""
Context = ForkServerContext | SpawnContext
Message = dict[str, Any]
Talk = Callable[[Message], Message]
"""Says something to the program that started the process, and waits for what it says next."""


class Hand:
    """One process.

    Attributes:
        link: the pipe to it.
    """

    def __init__(
        self, context: ForkServerContext | SpawnContext, work: str, about: Message
    ) -> None:
        self.link, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, work, about), daemon=True)
        resource_tracker.ensure_running()  # starting it would let interrupts through again
        with interrupts_held():
            self._process.start()
        theirs.close()

    def say(self, message: Message) -> None:
        """Send a message; where the process died, the next answer will tell."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.link.send_bytes(json.dumps(message).encode())

    def hear(self) -> Message:
        """Its next message.

        Raises:
            InputError: the process found that what the user gave cannot be used.
            RunError: it died, or anything else went wrong in it.
        """
        try:
            message: Message = json.loads(self.link.recv_bytes())
        except (EOFError, OSError) as error:
            raise RunError(f"a worker process died ({self._obituary()})") from error
        if "refused" in message:
            raise InputError(message["refused"])
        if "failed" in message:
            raise RunError(message["failed"])
        return message

    def end(self) -> None:
        """Kill the process, which has nothing to save."""
        self._process.kill()
        self._process.join()
        self.link.close()

    def _obituary(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"


class Hands:
    """So many processes that do the same work; a context manager ends them.

    Args:
        count: of processes.
        work: `module:function`; it is called once in each process, with a `Talk` and `about`.
        about: JSON values.

    Attributes:
        each: the processes.

    Raises:
        InputError: fewer than one process.
    """

    def __init__(self, count: int, work: str, about: Message) -> None:
        if count < 1:
            raise InputError(f"{count} jobs; it takes at least 1")
        context = _context(work.partition(":")[0])
        self.each: list[Hand] = []
        try:
            for _ in range(count):
                self.each.append(Hand(context, work, about))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> list[Hand]:
        """Those that have said something, at least one."""
        ready = set(connection.wait([hand.link for hand in self.each]))
        return [hand for hand in self.each if hand.link in ready]

    def close(self) -> None:
        """End the processes."""
        for hand in self.each:
            hand.end()


def _context(module: str) -> Context:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])  # heeded by a server that is not up yet
    return context


def _keep_freed_memory() -> None:
    """Have what one expert leaves be used for the next, where the C library is glibc.

    It gives memory back to the system as soon as it can, and fresh pages take a fifth of the time
    in which an expert is encoded.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, NEVER)
        library.mallopt(M_MMAP_THRESHOLD, OWN_PAGES)


def _work(link: connection.Connection, work: str, about: Message) -> None:
    """What a process runs, until the pipe closes."""
    torch.set_num_threads(1)
    _keep_freed_memory()

    def say(message: Message) -> None:
        link.send_bytes(json.dumps(message).encode())

    def talk(message: Message) -> Message:
        say(message)
        answer: Message = json.loads(link.recv_bytes())
        return answer

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the program is gone
        try:
            module, _, function = work.partition(":")
            getattr(import_module(module), function)(talk, about)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except InputError as error:
            say({"refused": str(error)})
        except OffsimError as error:
            say({"failed": str(error)})
        except Exception as error:  # whatever a foreign codec does
            say({"failed": f"{type(error).__name__}: {error}"})
