"""A CUDA device that is not there: the few calls of torch.cuda and CuPy, over tensors of the CPU.

What is queued on a stream is done no sooner than somebody waits for it, in order: who reads memory
before that finds what was there before. The device has a clock of its own.
"""

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from offsim.codec.cuszp import decode_into
from offsim.codec.cuszp_kernels import MODES
from offsim.codec.cuszp_kernels import cuda as kernels
from offsim.runtime.link import Bytes

CLOCK_OFFSET_S = 4321.0
_AT_ONCE = ("aten::empty", "aten::view", "aten::slice", "aten::select", "aten::detach")
_COPY = torch.ops.aten.copy_.default


class Stream:
    """Things to do, in order."""

    def __init__(self, fake: "FakeCuda", device: torch.device) -> None:
        self.device = device
        self._waiting: deque[Callable[[], object]] = deque()
        self._lock = threading.RLock()
        with fake.making:  # threads make streams at once, and no two may have one number
            fake.streams.append(self)
            self.cuda_stream = len(fake.streams)

    def queue(self, thing: Callable[[], object]) -> None:
        with self._lock:
            self._waiting.append(thing)

    def synchronize(self) -> None:
        with self._lock, _disable_current_modes():
            while self._waiting:
                self._waiting.popleft()()


class Event:
    """A place on a stream."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing, "an event without it has no time"
        self._ms: float | None = None
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self._ms, self._stream = None, stream
        stream.queue(self._passed)

    def _passed(self) -> None:
        self._ms = (time.perf_counter() - CLOCK_OFFSET_S) * 1e3

    def synchronize(self) -> None:
        assert self._stream is not None, "nobody recorded it"
        self._stream.synchronize()

    def elapsed_time(self, later: "Event") -> float:
        assert self._ms is not None, "not waited for"
        assert later._ms is not None, "not waited for"
        return float(np.float32(later._ms - self._ms))


class _On(TorchDispatchMode):
    """Queues copies on a stream; before anything else is computed, it is through."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _COPY:
            self.stream.queue(lambda: func(*args, **kwargs))
            return args[0]
        if not func.name().startswith(_AT_ONCE):
            self.stream.synchronize()
        return func(*args, **kwargs)


class FakeCuda(ModuleType):
    """What `offsim.runtime.devices.cuda` uses of torch.cuda.

    Attributes:
        streams: that were made, in order.
        making: held while one is.
        used: which streams torch was given work for, by the name of the thread.
    """

    Event = Event

    def __init__(self, *, available: bool = True) -> None:
        super().__init__("cuda")
        self.streams: list[Stream] = []
        self.making = threading.Lock()
        self.used: dict[str, set[int]] = {}
        self._available = available

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        return Stream(self, device)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        name = threading.current_thread().name
        self.used.setdefault(name, set()).add(stream.cuda_stream)
        with _On(stream):
            yield

    def synchronize(self) -> None:
        for stream in self.streams:
            stream.synchronize()

    def is_available(self) -> bool:
        return self._available

    def get_device_name(self) -> str:
        return "a CUDA device that is not there"


class Runner(Protocol):
    """Runs launches, such as the shim, which is thorough and slow."""

    def run(self, plan: Sequence[kernels.Launch]) -> None: ...


class Quick:
    """Does what the kernels of a decode do, by those for the CPU."""

    def run(self, plan: Sequence[kernels.Launch]) -> None:
        for launch in plan:
            step, _, kind = launch.kernel.partition("_")
            if step != "decode":
                assert launch.kernel in ("lengths", "starts")
                continue
            source, size, count, bound, mode, _, _, needed, out = map(
                methodcaller("item"), launch.arguments
            )
            dtype = {name: dtype for dtype, name in kernels.DTYPES.items()}[kind]
            values = torch.from_numpy(_memory(out, count * dtype.itemsize)).view(dtype)
            name = {number: name for name, number in MODES.items()}[mode]
            decode_into(_memory(source, size), values, bound, name)
            _memory(needed, 8).view(np.int64)[0] = size


def _memory(address: int, nbytes: int) -> Bytes:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


class FakeCupy(ModuleType):
    """What is used of CuPy: kernels are queued on streams, and run on the CPU.

    Attributes:
        launched: names of the kernels, in the order in which they were asked for.
        pinned: bytes of each piece of pinned memory that was given out.
    """

    class OutOfPinnedMemoryError(Exception):
        """What CUDA says where no more memory can be pinned."""

    __version__ = "0"

    def __init__(self, cuda: FakeCuda, runner: Runner, most_pinned: int | None = None) -> None:
        super().__init__("cupy")
        self._streams, self._runner, self._most = cuda.streams, runner, most_pinned
        self._current = threading.local()
        self.launched: list[str] = []
        self.pinned: list[int] = []
        self.cuda = SimpleNamespace(
            Device=self._device,
            ExternalStream=self._on,
            alloc_pinned_memory=self._alloc,
            runtime=SimpleNamespace(CUDARuntimeError=self.OutOfPinnedMemoryError),
        )

    @contextmanager
    def _device(self, index: int | None) -> Iterator[None]:
        yield

    @contextmanager
    def _on(self, address: int, index: int | None) -> Iterator[None]:
        self._current.stream = self._streams[address - 1]
        yield
        self._current.stream = None

    def _alloc(self, nbytes: int) -> bytearray:
        if self._most is not None and sum(self.pinned) + nbytes > self._most:
            raise self.OutOfPinnedMemoryError("cudaErrorMemoryAllocation: out of memory")
        self.pinned.append(nbytes)
        return bytearray(nbytes)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # noqa: N802
        assert code == kernels.source()
        return SimpleNamespace(get_function=lambda name: lambda *how: self._launch(name, *how))

    def _launch(self, name: str, grid: tuple[int], block: tuple[int], arguments: Any) -> None:
        self.launched.append(name)
        plan = [kernels.Launch(name, *grid, *block, arguments)]
        self._current.stream.queue(lambda: self._runner.run(plan))
