import ctypes
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from offsim.cli.probes import cuda
from offsim.cli.probes.cuda import Device, Driver
from offsim.codec.cuszp_kernels import cuda as kernels
from offsim.codec.cuszp_kernels import official
from offsim.errors import InputError
from offsim.runtime import devices

DEVICE = Device("NVIDIA H100", 85_000_000_000, (9, 0))
NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""


class Library:
    """What a driver answers to the calls of cuda.h that are made."""

    def __init__(self, version: int, names: list[str], starts: bool = True) -> None:
        self.version, self.names, self.starts = version, names, starts

    def cuInit(self, flags: int) -> int:  # noqa: N802, names of cuda.h
        return 0 if self.starts else NO_DEVICE

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        assert self.starts
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, handle: Any, number: int) -> int:  # noqa: N802
        handle._obj.value = 10 + number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:  # noqa: N802
        name.value = self.names[handle.value - 10].encode()
        assert size == len(name)
        return 0

    def cuDeviceTotalMem_v2(self, nbytes: Any, handle: Any) -> int:  # noqa: N802
        nbytes._obj.value = 85_000_000_000
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0


Use = Callable[[Driver | None], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes another driver that of this machine."""
    return lambda driver: monkeypatch.setattr(cuda, "driver", lambda: driver)


@pytest.fixture
def fresh() -> Iterator[None]:
    cuda.driver.cache_clear()
    yield
    cuda.driver.cache_clear()


def test_a_driver_is_asked_for_its_devices() -> None:
    assert cuda.asked(Library(13010, ["NVIDIA H100"])) == Driver((13, 1), (DEVICE,))
    assert cuda.asked(Library(12080, ["a", "b"])).devices[1].name == "b"
    assert cuda.asked(Library(12080, ["a"], starts=False)) == Driver((12, 8), ())


@pytest.mark.usefixtures("fresh")
def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert cuda.driver() is None
    assert cuda.driver_row().state == "missing"
    assert "install NVIDIA's driver" in cuda.driver_row().remedy
    assert str(cuda.device_row()) == "missing"


def test_driver_and_devices_are_shown(use: Use) -> None:
    use(Driver((12, 8), (DEVICE,)))
    assert str(cuda.driver_row()) == "works: for CUDA up to 12.8"
    assert str(cuda.device_row()) == "works: NVIDIA H100, 85 GB, compute capability 9.0"


@pytest.mark.parametrize(
    ("build", "driver", "sees", "state", "remedy"),
    [
        (None, None, False, "missing", ""),
        (
            None,
            Driver((13, 0), (DEVICE,)),
            False,
            "missing",
            "pip uninstall torch, then pip install 'offsim[gpu-cu13]'",
        ),
        ("13.0", None, False, "fact", ""),
        ("13.0", Driver((13, 0), ()), False, "fact", ""),
        (
            "13.0",
            Driver((12, 8), (DEVICE,)),
            False,
            "FAILS",
            "pip install 'offsim[gpu-cu12]', or a newer driver",
        ),
        ("12.8", Driver((13, 0), (DEVICE,)), True, "works", ""),
        ("13.0", Driver((13, 0), (DEVICE,)), False, "FAILS", ""),
    ],
)
def test_torch_has_to_be_built_for_a_cuda_that_the_driver_has(
    monkeypatch: pytest.MonkeyPatch,
    use: Use,
    build: str | None,
    driver: Driver | None,
    sees: bool,
    state: str,
    remedy: str,
) -> None:
    use(driver)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    found = cuda.torch_row()
    assert (found.state, found.remedy) == (state, remedy)
    assert torch.__version__ in found.here


def test_two_packages_of_cupy_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "installed_cupy", lambda: SimpleNamespace(__version__="14.2.0"))
    names = ["cupy-cuda13x", "cupy-cuda13x"]
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"cupy": names})
    assert str(cuda.cupy_row()) == "works: 14.2.0 (cupy-cuda13x)"
    names.append("cupy-cuda12x")
    found = cuda.cupy_row()
    assert found.state == "FAILS"
    assert "cupy-cuda12x, cupy-cuda13x" in found.here


def test_without_cupy_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for look in (cuda.cupy_row, cuda.nvrtc_row):
        with pytest.raises(InputError, match=r"needs CuPy .*; pip install 'offsim\[gpu\]'"):
            look()


class Nvrtc(ModuleType):
    """NVRTC of any version, which compiles for some architectures."""

    def __init__(self, version: tuple[int, int] | None, knows: tuple[str, ...] = ()) -> None:
        super().__init__("cupy_backends.cuda.libs.nvrtc")
        self.version, self.knows, self.open = version, knows, 0

    def getVersion(self) -> tuple[int, int]:  # noqa: N802
        if self.version is None:
            raise RuntimeError("CuPy failed to load libnvrtc.so")
        return self.version

    def createProgram(self, source: str, *_: object) -> str:  # noqa: N802
        assert "__global__" in source
        self.open += 1
        return source

    def compileProgram(self, program: str, options: tuple[str, ...]) -> None:  # noqa: N802
        if options[0].removeprefix("-arch=") not in self.knows:
            raise RuntimeError(f"invalid value for --gpu-architecture ({options[0]})")

    def destroyProgram(self, program: str) -> None:  # noqa: N802
        self.open -= 1


@pytest.fixture
def nvrtc(monkeypatch: pytest.MonkeyPatch) -> Callable[[Nvrtc], None]:
    def put(module: Nvrtc) -> None:
        monkeypatch.setattr(kernels, "installed_cupy", lambda: None)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def test_nvrtc_compiles_for_the_device(use: Use, nvrtc: Callable[[Nvrtc], None]) -> None:
    module = Nvrtc((12, 8), ("sm_80", "sm_90"))
    nvrtc(module)
    use(None)
    assert "12.8, compiled cuszp.cu for sm_80 in " in cuda.nvrtc_row().here
    use(Driver((12, 8), (DEVICE,)))
    assert "for sm_90 in " in cuda.nvrtc_row().here
    module.knows = ()
    with pytest.raises(RuntimeError, match="sm_90"):
        cuda.nvrtc_row()
    assert module.open == 0


def test_cupy_without_nvrtc_is_missing_it(use: Use, nvrtc: Callable[[Nvrtc], None]) -> None:
    nvrtc(Nvrtc(None))
    use(None)
    assert cuda.nvrtc_row().state == "missing"
    assert cuda.nvrtc_row().remedy == "pip install 'offsim[gpu]'"
    use(Driver((12, 8), (DEVICE,)))
    assert cuda.nvrtc_row().remedy == "pip install 'offsim[gpu-cu12]'"


def test_the_real_nvrtc_compiles_the_kernels() -> None:
    libs = pytest.importorskip(
        "cupy_backends.cuda.libs.nvrtc", reason="needs CuPy: pip install 'offsim[gpu]'"
    )
    try:
        libs.getVersion()
    except RuntimeError as error:
        pytest.skip(f"needs NVRTC ({error})")
    assert cuda.nvrtc_row().state == "works"


def test_memory_is_pinned_where_there_is_a_device(
    monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    use(None)
    assert str(cuda.pinned_row()) == "not tried: no CUDA device"
    use(Driver((13, 0), (DEVICE,)))

    def pin(nbytes: int) -> SimpleNamespace:
        if nbytes > limit:
            raise RuntimeError("cudaErrorMemoryAllocation: out of memory")
        return SimpleNamespace(size=lambda: nbytes)

    cupy = SimpleNamespace(cuda=SimpleNamespace(alloc_pinned_memory=pin))
    monkeypatch.setattr(kernels, "installed_cupy", lambda: cupy)
    limit = 1 << 30
    assert str(cuda.pinned_row()) == "works: 67.1 MB pinned"
    limit = 0
    assert cuda.pinned_row().state == "FAILS"
    assert "ulimit" in cuda.pinned_row().remedy


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_kernels_are_not_tried() -> None:
    assert str(cuda.kernels_row()) == "not tried: no CUDA device"
    found = cuda.usable_row()
    assert found.state == "missing"
    assert found.here.startswith("torch ")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_all_of_it_works() -> None:
    looks = (cuda.driver_row, cuda.device_row, cuda.torch_row, cuda.pinned_row, cuda.kernels_row)
    assert [look().state for look in looks] == ["works"] * len(looks)


def test_a_device_that_can_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_named", lambda name: f"{name}, made up")
    assert str(cuda.usable_row()) == "works: cuda, made up"


def test_the_official_library_is_found_or_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(official.VARIABLE, raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    found = cuda.official_row()
    assert (found.state, found.here) == ("missing", "none, and none is needed")
    assert official.VARIABLE in found.remedy
    monkeypatch.setenv(official.VARIABLE, "none.so")
    with pytest.raises(InputError, match=r"none.so cannot be loaded .*; give a libcuSZp.so"):
        cuda.official_row()
    monkeypatch.setattr(official, "load", lambda _: None)
    assert cuda.official_row().state == "works"
