import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offsim.codec.cuszp import decode_stream, encode_stream
from offsim.codec.cuszp_kernels import official
from offsim.codec.cuszp_kernels.official import DeviceMemory, Dims, OfficialCuszp, stream_size
from offsim.errors import CodecError, InputError

from ..checks import sha256
from ..cuszp_cases import CASES, INPUTS, MODES, id_of, normal

SOURCE = Path(__file__).with_name("official_stand_in.c")
EACH_MODE = pytest.mark.parametrize("mode", MODES)


class Call(ctypes.Structure):
    """What the stand-in notes of a call."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
        ("bound", ctypes.c_float),
        ("dim", ctypes.c_int),
        ("dims", Dims),
        ("type", ctypes.c_int),
        ("mode", ctypes.c_int),
        ("queue", ctypes.c_void_p),
        ("calls", ctypes.c_int),
    )


class HostMemory:
    """The host's, noting in which order it is asked for what."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def zeros(self, size: int) -> torch.Tensor:
        self.log.append(f"zeros {size}")
        return torch.zeros(size, dtype=torch.uint8)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        self.log.append("wait")
        yield
        self.log.append("wait")


class StandIn:
    """The library, and what the test prepares in it."""

    def __init__(self, path: Path) -> None:
        self.memory = HostMemory()
        self.backend = OfficialCuszp(self.memory, path)
        self.library = ctypes.CDLL(str(path))
        self.library.last_call.restype = ctypes.POINTER(Call)
        self.kept = b""

    def prepare(self, data: bytes) -> None:
        self.kept = data
        self.library.prepare(data, ctypes.c_size_t(len(data)))

    @property
    def last(self) -> Call:
        call: Call = self.library.last_call().contents
        return call


def build(folder: Path, *flags: str, source: Path = SOURCE) -> Path:
    compiler = next((found for name in ("cc", "gcc", "g++") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("needs a C compiler")
    path = folder / "libcuSZp.so"
    command = [compiler, "-shared", "-fPIC", "-O1", *flags, "-x", "c", source, "-o", path]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("v3"))


@pytest.fixture
def stand_in(library: Path) -> StandIn:
    return StandIn(library)


def bytes_of(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def shifted(tensor: torch.Tensor) -> torch.Tensor:
    """The same values one element further in memory."""
    return torch.cat([tensor[:1], tensor])[1:]


# ---- Calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_compress_counts_the_size_by_the_rates(stand_in: StandIn, case: dict[str, Any]) -> None:
    values = INPUTS[case["name"]]()
    stream = encode_stream(values, case["eb"], case["mode"])
    stand_in.prepare(stream)
    exact = stand_in.backend.compress(torch.from_numpy(values), case["eb"], case["mode"])
    assert sha256(exact.numpy().tobytes()) == case["stream"]


@EACH_MODE
@pytest.mark.parametrize("count", [100, 32_768, 40_000])
def test_compress_passes_the_arguments_of_v3(stand_in: StandIn, mode: str, count: int) -> None:
    values = torch.from_numpy(normal(3, count))
    stand_in.prepare(encode_stream(values.numpy(), 1e-3, mode))
    before = stand_in.last.calls
    stand_in.backend.compress(values, 1e-3, mode)
    last = stand_in.last
    assert last.calls == before + 1
    assert last.values == values.data_ptr()
    assert last.stream % 4 == 0
    assert (last.count, last.dim, last.type, last.queue) == (count, 1, 0, None)
    assert (last.dims.x, last.dims.y, last.dims.z) == (count, 1, 1)
    assert (last.mode, last.bound) == (MODES.index(mode), np.float32(1e-3))
    blocks = -(-count // 32)
    room = 1024 * -(-count // 32768) + 128 * blocks
    assert stand_in.memory.log == [f"zeros {room}", "wait", "wait"]


@EACH_MODE
@pytest.mark.parametrize("count", [100, 32_768, 40_000])
def test_decompress_passes_the_arguments_of_v3(stand_in: StandIn, mode: str, count: int) -> None:
    values = normal(3, count)
    values[:64] = 0
    stream = encode_stream(values, 1e-3, mode)
    expected = decode_stream(stream, count, 1e-3, mode)
    stand_in.prepare(expected.tobytes())
    out, payload = torch.full((count,), 7.0), bytes_of(stream)
    stand_in.backend.decompress(payload, out, 1e-3, mode)
    assert out.tolist() == expected.tolist(), "blocks of zeros were not zeroed"
    last = stand_in.last
    assert (last.values, last.stream) == (out.data_ptr(), payload.data_ptr())
    assert (last.count, last.dim, last.type, last.queue) == (count, 1, 0, None)
    assert (last.dims.x, last.dims.y, last.dims.z) == (count, 1, 1)
    assert (last.mode, last.bound) == (MODES.index(mode), np.float32(1e-3))
    assert last.size == len(stream)
    assert stand_in.memory.log == ["wait", "wait"]


def test_tensors_that_are_not_aligned_are_copied(stand_in: StandIn) -> None:
    values = normal(3, 100)
    stream = encode_stream(values, 1e-3, "outlier")
    stand_in.prepare(stream)
    source = shifted(torch.from_numpy(values))
    assert source.data_ptr() % 16
    exact = stand_in.backend.compress(source, 1e-3, "outlier")
    assert exact.numpy().tobytes() == stream
    assert stand_in.last.values % 16 == 0
    assert stand_in.last.values != source.data_ptr()

    expected = decode_stream(stream, 100, 1e-3, "outlier")
    stand_in.prepare(expected.tobytes())
    out, payload = shifted(torch.full((100,), 7.0)), shifted(bytes_of(stream))
    stand_in.backend.decompress(payload, out, 1e-3, "outlier")
    assert out.tolist() == expected.tolist()
    assert (stand_in.last.values % 16, stand_in.last.stream % 4) == (0, 0)


def test_nothing_is_not_given_to_the_library(stand_in: StandIn) -> None:
    before = stand_in.last.calls
    assert stand_in.backend.compress(torch.zeros(0), 1e-3, "plain").shape == (0,)
    stand_in.backend.decompress(torch.zeros(0, dtype=torch.uint8), torch.zeros(0), 1e-3, "plain")
    assert stand_in.last.calls == before


def test_shapes_are_kept(stand_in: StandIn) -> None:
    values = normal(3, 96)
    stream = encode_stream(values, 1e-3)
    stand_in.prepare(stream)
    exact = stand_in.backend.compress(torch.from_numpy(values).view(8, 12), 1e-3, "fixed")
    stand_in.prepare(decode_stream(stream, 96, 1e-3).tobytes())
    for out in (torch.zeros(8, 12), shifted(torch.zeros(96)).view(8, 12)):
        stand_in.backend.decompress(exact, out, 1e-3, "fixed")
        assert out.view(-1).tolist() == decode_stream(stream, 96, 1e-3).tolist()


# ---- Refusals ---------------------------------------------------------------------------------


@EACH_MODE
def test_damaged_streams_do_not_reach_the_library(stand_in: StandIn, mode: str) -> None:
    stream = encode_stream(normal(3, 100), 1e-3, mode)
    bad_rate = b"\x40" + stream[1:]
    past_the_end = stream[:4] + b"\x01" + stream[5:]
    before, out = stand_in.last.calls, torch.full((100,), 7.0)
    for damaged, match in (
        (stream[:1000], "1000 bytes are too few for 100 values"),
        (stream[:-1], f"{len(stream) - 1} bytes where the rates call for {len(stream)}"),
        (stream + b"\0", f"where the rates call for {len(stream)}"),
        (bad_rate, "a rate that no encoder writes"),
        (past_the_end, "a rate that no encoder writes"),
    ):
        with pytest.raises(CodecError, match=match):
            stand_in.backend.decompress(bytes_of(damaged), out, 1e-3, mode)
    assert stand_in.last.calls == before
    assert (out == 7.0).all()


def test_verified_streams_need_not_be_read_back(stand_in: StandIn) -> None:
    stream = encode_stream(normal(3, 100), 1e-3)
    stand_in.prepare(bytes(400))
    before = stand_in.last.calls
    stand_in.backend.decompress(
        bytes_of(stream[:-1]), torch.zeros(100), 1e-3, "fixed", verify=False
    )
    assert stand_in.last.calls == before + 1


def test_garbage_from_the_library_is_noticed(stand_in: StandIn) -> None:
    stand_in.prepare(b"\xff" * 1024)
    with pytest.raises(CodecError, match="a rate that no encoder writes"):
        stand_in.backend.compress(torch.ones(100), 1e-3, "fixed")


def test_unusable_arguments_are_refused(stand_in: StandIn) -> None:
    backend, out = stand_in.backend, torch.zeros(64)
    with pytest.raises(InputError, match="no mode 'rough'"):
        backend.compress(out, 1e-3, "rough")
    with pytest.raises(InputError, match="bfloat16"):
        backend.compress(out.bfloat16(), 1e-3, "fixed")
    with pytest.raises(InputError, match="contiguous"):
        backend.compress(out[::2], 1e-3, "fixed")
    with pytest.raises(InputError, match="the bound 0 is not"):
        backend.compress(out, 0.0, "fixed")
    with pytest.raises(InputError, match="give contiguous uint8"):
        backend.decompress(out, out, 1e-3, "fixed")
    for count in (1 << 31, 1 << 30):
        with pytest.raises(InputError, match=f"{count} values are too many"):
            backend.compress(torch.empty(count, device="meta"), 1e-3, "fixed")


def test_rates_give_the_size_of_a_stream() -> None:
    rates = np.zeros(1024, np.uint8)
    assert stream_size(rates, 0 + 32, "fixed") == 1024
    rates[:2] = 31, 1
    assert stream_size(rates, 64, "plain") == 1024 + 128 + 8
    rates[:2] = 0b11100010, 0b10000000  # the worked example of docs/formats.md has 0x82
    assert stream_size(rates, 64, "outlier") == 1024 + (4 + 4 + 8) + (1 + 4)


# ---- Finding and loading ----------------------------------------------------------------------


def test_the_argument_goes_before_the_variable_and_that_before_the_system(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.of.the.system")
    monkeypatch.delenv(official.VARIABLE, raising=False)
    assert official.find() == "libcuSZp.so.of.the.system"
    monkeypatch.setenv(official.VARIABLE, "/from/variable.so")
    assert official.find() == "/from/variable.so"
    assert official.find("/given.so") == "/given.so"
    monkeypatch.setenv(official.VARIABLE, str(library))
    backend = OfficialCuszp(HostMemory())
    assert backend.path == str(library)
    assert backend.version == "official cuSZp V3"


def test_missing_library_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    monkeypatch.delenv(official.VARIABLE, raising=False)
    with pytest.raises(InputError, match="no official cuSZp library was found; set OFFSIM_CUSZP"):
        OfficialCuszp(HostMemory())


def test_library_of_v2_is_refused(tmp_path: Path) -> None:
    path = build(tmp_path, "-DOLDER")
    with pytest.raises(InputError, match="older than release V3, whose arguments and mode numbers"):
        OfficialCuszp(HostMemory(), path)


def test_another_library_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "other.c"
    source.write_text("int nothing(void) { return 0; }\n", encoding="utf-8")
    with pytest.raises(InputError, match="is no cuSZp library of release V3"):
        OfficialCuszp(HostMemory(), build(tmp_path, source=source))


@pytest.mark.parametrize("content", [None, b"", b"not a library at all\n" * 10])
def test_what_is_no_library_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "libcuSZp.so"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"libcuSZp.so cannot be loaded"):
        OfficialCuszp(HostMemory(), path)


# ---- Devices ----------------------------------------------------------------------------------


def test_the_library_is_not_used_without_a_device() -> None:
    with pytest.raises(InputError, match="needs a CUDA device, not cpu"):
        DeviceMemory(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_of_a_device_is_zero_and_aligned() -> None:
    memory = DeviceMemory(torch.device("cuda"))
    tensor = memory.zeros(1000)
    with memory.quiet():
        assert not tensor.any()
    assert tensor.data_ptr() % 16 == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EACH_MODE
def test_a_real_library_makes_the_same_bytes(mode: str) -> None:
    try:
        path = official.find()
    except InputError as error:
        pytest.skip(str(error))
    backend = OfficialCuszp(DeviceMemory(torch.device("cuda")), path)
    values = normal(2, 70_001)
    stream = encode_stream(values, 1e-3, mode)
    exact = backend.compress(torch.from_numpy(values).cuda(), 1e-3, mode)
    assert exact.cpu().numpy().tobytes() == stream
    out = torch.full((70_001,), 7.0, device="cuda")
    backend.decompress(exact, out, 1e-3, mode)
    assert out.tolist() == decode_stream(stream, 70_001, 1e-3, mode).tolist()
