"""A CUDA device, and what it takes to use one."""

import ctypes
import importlib
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from offsim.cli.probes.base import Found, Probe, fact, fails, missing, works
from offsim.errors import InputError
from offsim.units import MIB, show_bytes, show_seconds

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""The driver's own, which comes with it and with nothing else."""
CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h)."""
NAME_BYTES = 256
OLDEST_CAPABILITY = (8, 0)
"""For which the kernels are compiled where no device says another."""
PINNED_BYTES = 64 * MIB
NO_DEVICE = "not tried: no CUDA device"
VALUES, BOUND = 40_000, 2.0**-9
"""Of the try of the kernels: more than one superblock of 32,768."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device, as the driver knows it.

    Attributes:
        name: of its maker.
        nbytes: of its memory.
        capability: major and minor.
    """

    name: str
    nbytes: int
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        cuda: the newest CUDA that it can, major and minor.
        devices: that it has found.
    """

    cuda: tuple[int, int]
    devices: tuple[Device, ...]


def probes() -> list[Probe]:
    """A row each."""
    return [
        Probe("CUDA driver", driver_row),
        Probe("CUDA device", device_row),
        Probe("torch for CUDA", torch_row),
        Probe("CuPy", cupy_row),
        Probe("NVRTC", nvrtc_row),
        Probe("pinned host memory", pinned_row),
        Probe("cuszp kernels on the device", kernels_row),
        Probe("official cuSZp library", official_row),
        Probe("device cuda", usable_row),
    ]


@cache
def driver() -> Driver | None:
    """The driver, asked itself; None where there is none."""
    try:
        return asked(ctypes.CDLL(LIBRARY))
    except OSError:
        return None


def asked(library: Any) -> Driver:
    """What a driver says; it finds no device where it cannot start.

    Args:
        library: with the functions of cuda.h.
    """
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    if library.cuInit(0) == 0:
        library.cuDeviceGetCount(ctypes.byref(count))
    devices = tuple(_device(library, number) for number in range(count.value))
    return Driver((version.value // 1000, version.value % 1000 // 10), devices)


def _device(library: Any, number: int) -> Device:
    handle, nbytes = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(NAME_BYTES)
    library.cuDeviceGet(ctypes.byref(handle), number)
    library.cuDeviceGetName(name, NAME_BYTES, handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(nbytes), handle)
    capability = [ctypes.c_int(0) for _ in CAPABILITY]
    for value, attribute in zip(capability, CAPABILITY, strict=True):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
    major, minor = (value.value for value in capability)
    return Device(name.value.decode(errors="replace"), nbytes.value, (major, minor))


def newest(here: Driver) -> int:
    """The newest CUDA that both a driver and an extra of offsim have, by its major version."""
    return 13 if here.cuda[0] >= 13 else 12


def remedy(here: Driver | None) -> str:
    """The extra that fits a driver."""
    return f"pip install 'offsim[gpu-cu{newest(here)}]'" if here and here.devices else ""


def driver_row() -> Found:
    """NVIDIA's driver."""
    here = driver()
    if here is None:
        return missing(remedy="on a machine with an NVIDIA GPU: install NVIDIA's driver")
    return works("for CUDA up to {}.{}".format(*here.cuda))


def device_row() -> Found:
    """Name, memory and compute capability of each device."""
    here = driver()
    if here is None or not here.devices:
        return missing()
    return works("; ".join(map(described, here.devices)))


def described(device: Device) -> str:
    """A device in a few words."""
    capability = "{}.{}".format(*device.capability)
    return f"{device.name}, {show_bytes(device.nbytes)}, compute capability {capability}"


def torch_row() -> Found:
    """Whether torch is built for CUDA, and for one that the driver has."""
    import torch

    here, build = driver(), torch.version.cuda
    if build is None:
        does = remedy(here) and f"pip uninstall torch, then {remedy(here)}"
        return missing(f"torch {torch.__version__} is built for the CPU alone", does)
    built = f"torch {torch.__version__} is built for CUDA {build}"
    if here is None or not here.devices:
        return fact(built)
    if int(build.partition(".")[0]) > here.cuda[0]:
        does = f"{remedy(here)}, or a newer driver"
        return fails("{}, the driver for {}.{}".format(built, *here.cuda), does)
    if not torch.cuda.is_available():
        return fails(f"{built}, and finds no device")
    return works(built)


def cupy_row() -> Found:
    """CuPy, which launches kernels and pins memory."""
    from offsim.codec.cuszp_kernels.cuda import installed_cupy

    cupy = installed_cupy()
    packages = sorted(
        name for name in metadata.packages_distributions().get("cupy", []) if "cupy" in name
    )
    here = f"{cupy.__version__} ({', '.join(dict.fromkeys(packages))})"
    if len(set(packages)) > 1:
        return fails(f"{here}: two at once hide each other", "pip uninstall all of them but one")
    return works(here)


def nvrtc_row() -> Found:
    """NVRTC, after it has compiled the kernels."""
    from offsim.codec.cuszp_kernels import cuda as kernels

    kernels.installed_cupy()
    nvrtc: Any = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
    here = driver()
    try:
        version = "{}.{}".format(*nvrtc.getVersion())
    except RuntimeError:
        return missing("CuPy finds none", remedy(here) or "pip install 'offsim[gpu]'")
    device = here.devices[0] if here and here.devices else None
    major, minor = device.capability if device else OLDEST_CAPABILITY
    start = time.perf_counter()
    program = nvrtc.createProgram(kernels.source(), "cuszp.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch=sm_{major}{minor}", "--std=c++17"))
    finally:
        nvrtc.destroyProgram(program)
    took = show_seconds(time.perf_counter() - start)
    return works(f"{version}, compiled cuszp.cu for sm_{major}{minor} in {took}")


def pinned_row() -> Found:
    """Host memory that copies cross the link from at full speed."""
    from offsim.codec.cuszp_kernels.cuda import installed_cupy

    here = driver()
    if here is None or not here.devices:
        return fact(NO_DEVICE)
    try:
        memory = installed_cupy().cuda.alloc_pinned_memory(PINNED_BYTES)
    except RuntimeError as error:
        return fails(f"no {show_bytes(PINNED_BYTES)} ({error})", "raise the limit (ulimit -l)")
    return works(f"{show_bytes(memory.size())} pinned")


def kernels_row() -> Found:
    """Whether the kernels on the device make the bytes of the CPU, and decode them likewise."""
    import torch

    from offsim.codec.cuszp import decode_stream, encode_stream
    from offsim.codec.cuszp_kernels import cuda as kernels

    if not torch.cuda.is_available():
        return fact(NO_DEVICE)
    values = torch.randn(VALUES, generator=torch.Generator().manual_seed(3)) * 0.02
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        there, back = values.cuda(), torch.empty(VALUES, device="cuda")
        encoded = kernels.encode(there, BOUND, "fixed", stream).exact()
        kernels.decode(encoded, back, BOUND, "fixed", stream).check()
    own = bytes(encode_stream(values.numpy(), BOUND, "fixed"))
    same = encoded.cpu().numpy().tobytes() == own
    expected = torch.from_numpy(decode_stream(own, VALUES, BOUND, "fixed"))
    if not (same and torch.equal(back.cpu(), expected)):
        return fails("other bytes or values than on the CPU", "offsim selftest --device cuda")
    return works("the bytes and values of the CPU")


def official_row() -> Found:
    """A library of the user, for comparison."""
    from offsim.codec.cuszp_kernels.official import VARIABLE, find, load

    try:
        path = find()
    except InputError:
        does = f"only to compare with it: set {VARIABLE} to a libcuSZp.so of release V3"
        return missing("none, and none is needed", does)
    load(path)
    return works("of release V3; it is called only on a CUDA device")


def usable_row() -> Found:
    """Whether `--device cuda` can be used."""
    from offsim.runtime.devices import device_named

    try:
        return works(str(device_named("cuda")))
    except InputError as error:
        return missing(str(error).rpartition("cannot be used here: ")[2])
