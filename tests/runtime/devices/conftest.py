"""CUDA devices that are not there."""

import pytest

from offsim.runtime.devices import Cuda
from tests.codec.cuszp_kernels.conftest import shim
from tests.codec.cuszp_kernels.shim import Shim

from .fake_cuda import FakeCuda, FakeCupy, Quick

__all__ = ["shim"]


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def cupy(fake: FakeCuda) -> FakeCupy:
    return FakeCupy(fake, Quick())


@pytest.fixture
def device(fake: FakeCuda, cupy: FakeCupy) -> Cuda:
    return Cuda(fake, cupy, "cpu")


@pytest.fixture
def with_kernels(shim: Shim) -> Cuda:
    """It runs the kernels themselves, thread by thread, which is slow."""
    fake = FakeCuda()
    return Cuda(fake, FakeCupy(fake, shim), "cpu")
