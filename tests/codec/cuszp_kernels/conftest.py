"""Where the kernels run: on a CUDA device, and on the CPU in the shim."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import pytest
import torch

from offsim.codec.cuszp_kernels import cuda

from .shim import Shim

SENTINEL = 7.0
"""What outputs hold before a decode."""


class Machine(Protocol):
    """Encodes and decodes tensors of the host, which may start anywhere in memory."""

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> bytes: ...

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        """Fill a tensor of the host; CodecError for a damaged stream."""


class OnCpu:
    """In the shim, with anything in the memory that is allocated."""

    def __init__(self, shim: Shim, backwards: bool = False) -> None:
        self.shim, self.backwards = shim, backwards

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> bytes:
        with garbage_in_new_tensors():
            encoded, plan = cuda.plan_encode(values, bound, mode)
        self.shim.run(plan, self.backwards)
        return encoded.exact().numpy().tobytes()

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        with garbage_in_new_tensors():
            decoding, plan = cuda.plan_decode(stream, out, bound, mode)
        self.shim.run(plan, self.backwards)
        decoding.check()


@contextmanager
def garbage_in_new_tensors() -> Iterator[None]:
    empty: Callable[..., torch.Tensor] = torch.empty

    def garbage(*shape: int, **options: object) -> torch.Tensor:
        tensor = empty(*shape, **options)
        tensor.view(torch.uint8).fill_(0xA5)
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", garbage)
        yield


class OnDevice:
    """On a side stream, with each tensor as far from alignment as it is on the host."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> bytes:
        with torch.cuda.stream(self.stream):
            encoded = cuda.encode(self.moved(values), bound, mode, self.stream)
        return encoded.exact().cpu().numpy().tobytes()

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        with torch.cuda.stream(self.stream):
            result = self.moved(out)
            decoding = cuda.decode(self.moved(stream), result, bound, mode, self.stream)
            out.copy_(result)
        decoding.check()

    def moved(self, tensor: torch.Tensor) -> torch.Tensor:
        shift = tensor.data_ptr() % 16 // tensor.element_size()
        room = torch.empty(shift + tensor.numel(), dtype=tensor.dtype, device="cuda")
        return room[shift:].copy_(tensor.view(-1))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    """Built once; OFFSIM_SHIM_FLAGS adds flags, for instance -fsanitize=address,undefined."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ to run CUDA kernels on the CPU")
    more = os.environ.get("OFFSIM_SHIM_FLAGS", "").split()
    return Shim(compiler, tmp_path_factory.mktemp("shim"), more)


DEVICE = pytest.param(
    "device",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.fixture(scope="session", params=["cpu", DEVICE])
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == "device":
        return OnDevice()
    return OnCpu(request.getfixturevalue("shim"))


@pytest.fixture(scope="session")
def backwards(shim: Shim) -> Machine:
    """The last thread of the last block runs first."""
    return OnCpu(shim, backwards=True)
