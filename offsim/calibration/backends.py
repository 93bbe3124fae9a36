"""What encodes and decodes cuSZp streams, measured side by side: C, numba, CUDA, the official."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from offsim.calibration.fit import figure
from offsim.calibration.measure import timed
from offsim.calibration.schema import Figure
from offsim.codec.cuszp import decode_into, encode_array
from offsim.codec.cuszp_kernels import Kernels, cuda
from offsim.codec.cuszp_kernels.official import OfficialCuszp
from offsim.errors import RunError


class Backend(ABC):
    """Encodes and decodes where the tensors are, and has finished when it returns.

    Attributes:
        name: what the measurements say it was.
    """

    name: str

    @abstractmethod
    def encode(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        """The stream [bytes] uint8 of values [count] float32, both on the device."""

    @abstractmethod
    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        """Fill [count] float32 from a stream [bytes] uint8, both on the device."""


class CpuBackend(Backend):
    """Kernels of the CPU, on one thread."""

    def __init__(self, core: Kernels) -> None:
        self.core, self.name = core, f"cpu, {core.name}"

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        """Without the GIL."""
        stream = encode_array(values.numpy(), bound, mode, with_kernels=self.core)
        return torch.from_numpy(stream)

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        """Straight into the tensor."""
        decode_into(stream.numpy().data, out, bound, mode, with_kernels=self.core)


class CudaBackend(Backend):
    """offsim's CUDA kernels.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.name = f"offsim's CUDA kernels on {torch.cuda.get_device_name(device)}"
        self.stream = torch.cuda.Stream(device)

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        """With the wait for the size of the stream."""
        return cuda.encode(values, bound, mode, self.stream).exact()

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        """With the check of the stream."""
        cuda.decode(stream, out, bound, mode, self.stream).check()
        self.stream.synchronize()


class OfficialBackend(Backend):
    """A user's libcuSZp.so."""

    def __init__(self, library: OfficialCuszp) -> None:
        self.library, self.name = library, f"{library.version} ({library.path})"

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        """With the sum of the rates that makes up for the size that the library gets wrong."""
        return self.library.compress(values, bound, mode)

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        """With the zeroing of the output that the library needs."""
        self.library.decompress(stream, out, bound, mode, verify=False)


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """One backend in one mode, MEASURED.

    Attributes:
        kernels: the name of the backend.
        mode: of cuSZp.
        stream_bytes: of the stream, the same for all backends.
        encode_s: one call.
        decode_s: one call.
    """

    kernels: str
    mode: str
    stream_bytes: int
    encode_s: Figure
    decode_s: Figure


def measure_backends(
    backends: Sequence[Backend],
    values: torch.Tensor,
    bound: float,
    modes: Sequence[str],
    repeats: int,
) -> list[BackendFigures]:
    """Time backends in turn, and see that they agree.

    Args:
        backends: on one device.
        values: [count] float32 on that device, finite.
        bound: absolute, unit of the values.
        modes: of cuSZp.
        repeats: of each timing; backends are interleaved, so that a drift of the machine hits all.

    Raises:
        RunError: two backends gave different bytes, or one decoded to other values.
    """
    figures = []
    out = torch.empty_like(values)
    for mode in modes:
        stream = backends[0].encode(values, bound, mode)
        backends[0].decode(stream, out, bound, mode)
        expected = out.clone()
        samples: dict[str, tuple[list[float], list[float]]] = {b.name: ([], []) for b in backends}
        for turn in range(repeats):
            for backend in backends:
                encodes, decodes = samples[backend.name]
                if not turn:
                    _check(backend, values, bound, mode, stream, expected)
                encodes += timed(partial(backend.encode, values, bound, mode), 1, 0)
                decodes += timed(partial(backend.decode, stream, out, bound, mode), 1, 0)
        figures += [
            BackendFigures(name, mode, len(stream), figure(encodes), figure(decodes))
            for name, (encodes, decodes) in samples.items()
        ]
    return figures


def _check(
    backend: Backend,
    values: torch.Tensor,
    bound: float,
    mode: str,
    stream: torch.Tensor,
    expected: torch.Tensor,
) -> None:
    """Refuse a backend that does not give these bytes and these values."""
    if not torch.equal(backend.encode(values, bound, mode), stream):
        raise RunError(f"{backend.name} encodes mode {mode} to other bytes than the first backend")
    out = torch.full_like(values, float("nan"))
    backend.decode(stream, out, bound, mode)
    if not torch.equal(out, expected):
        raise RunError(f"{backend.name} decodes mode {mode} to other values than the first backend")
