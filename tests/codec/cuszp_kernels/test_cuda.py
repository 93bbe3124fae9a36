import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offsim.codec.base import Float32
from offsim.codec.cuszp import decode_stream, encode_stream
from offsim.codec.cuszp_kernels import cuda
from offsim.errors import CodecError, InputError

from .. import cuszp_reference
from ..checks import assert_same_bits, sha256
from ..cuszp_cases import CASES, INPUTS, MODES, id_of, normal, special
from .conftest import SENTINEL, Machine
from .shim import Shim

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EACH_MODE = pytest.mark.parametrize("mode", MODES)
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def bytes_of(stream: bytes) -> torch.Tensor:
    return torch.tensor(list(stream), dtype=torch.uint8)


def decoded(
    machine: Machine,
    stream: bytes,
    count: int,
    bound: float,
    mode: str,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    out = torch.full((count,), SENTINEL, dtype=dtype)
    machine.decode(torch.from_numpy(np.frombuffer(stream, np.uint8).copy()), out, bound, mode)
    return out


def shifted(tensor: torch.Tensor, by: int) -> torch.Tensor:
    """The same values, starting `by` elements into their memory."""
    return torch.cat([tensor[:1].expand(by), tensor])[by:]


# ---- The bytes of the official library --------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_streams_and_values_are_those_of_the_official_library(
    machine: Machine, case: dict[str, Any]
) -> None:
    values, bound, mode = INPUTS[case["name"]](), case["eb"], case["mode"]
    assert sha256(values.tobytes()) == case["input"], "this input is not the one that was encoded"
    stream = machine.encode(torch.from_numpy(values), bound, mode)
    assert sha256(stream) == case["stream"]
    back = decoded(machine, stream, case["n"], bound, mode)
    assert sha256(back.numpy().tobytes()) == case["decoded"]


@EACH_MODE
def test_three_superblocks_as_on_the_cpu(machine: Machine, mode: str) -> None:
    values = normal(2, 70_001)
    values[40_000:66_000] *= 1e-3  # blocks of zeros
    stream = machine.encode(torch.from_numpy(values), 1e-3, mode)
    assert stream == encode_stream(values, 1e-3, mode)
    expected = decode_stream(stream, len(values), 1e-3, mode)
    assert_same_bits(decoded(machine, stream, 70_001, 1e-3, mode), torch.from_numpy(expected))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    values=hnp.arrays(
        np.float32,
        st.integers(0, 200),
        elements=st.one_of(st.floats(width=32), st.floats(-1, 1, width=32)),
    ),
    bound=st.floats(1e-5, 1.0),
    mode=st.sampled_from(MODES),
)
def test_any_values_encode_and_decode_as_in_the_reference(
    machine: Machine, values: Float32, bound: float, mode: str
) -> None:
    stream = machine.encode(torch.from_numpy(values), bound, mode)
    assert stream == cuszp_reference.encode(values, bound, mode)
    expected = cuszp_reference.decode(stream, len(values), bound, mode)
    back = decoded(machine, stream, len(values), bound, mode)
    assert_same_bits(back, torch.from_numpy(expected))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    rates=st.lists(st.integers(0, 159) | st.integers(128, 255), min_size=1, max_size=9),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_payload_decodes_as_in_the_reference(
    machine: Machine, rates: list[int], mode: str, seed: int
) -> None:
    if mode != "outlier":
        rates = [rate & 31 for rate in rates]
    rates = [rate if rate >= 128 else rate & 31 for rate in rates]
    lengths = [(rate > 0) * (4 + 4 * (rate & 31)) for rate in rates]
    lengths = [n + (r >> 5 & 3) + 1 if r >= 128 else n for n, r in zip(lengths, rates, strict=True)]
    payload = np.random.default_rng(seed).bytes(sum(lengths))
    stream, count = bytes(rates).ljust(1024, b"\0") + payload, 32 * len(rates) - seed % 32
    expected = torch.from_numpy(cuszp_reference.decode(stream, count, 1e-4, mode))
    assert_same_bits(decoded(machine, stream, count, 1e-4, mode), expected)


@EACH_MODE
@pytest.mark.parametrize("count", [1, 7, 8, 9, 31, 32, 33, 255, 256, 257, 1023, 2049, 32768, 32769])
def test_every_length_fills_its_output_and_no_more(machine: Machine, count: int, mode: str) -> None:
    values = normal(count, count)
    stream = machine.encode(torch.from_numpy(values), 1e-3, mode)
    assert stream == encode_stream(values, 1e-3, mode)
    room = torch.full((count + 40,), SENTINEL)
    machine.decode(bytes_of(stream), room[:count], 1e-3, mode)
    assert room[:count].tolist() == decode_stream(stream, count, 1e-3, mode).tolist()
    assert (room[count:] == SENTINEL).all()


@EACH_MODE
def test_halves_are_rounded_as_on_the_cpu(machine: Machine, mode: str) -> None:
    values = np.arange(-100, 101, dtype=np.float32) / 2
    halves = np.concatenate([values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)])
    stream = machine.encode(torch.from_numpy(halves), 0.5, mode)
    assert stream == cuszp_reference.encode(halves, 0.5, mode)


@EACH_MODE
def test_nothing_has_an_empty_stream(machine: Machine, mode: str) -> None:
    assert machine.encode(torch.empty(0), 1e-3, mode) == b""
    assert decoded(machine, b"", 0, 1e-3, mode).shape == (0,)
    with pytest.raises(CodecError, match="4 bytes where the rates call for 0"):
        decoded(machine, bytes(4), 0, 1e-3, mode)


@EACH_MODE
def test_the_order_of_threads_does_not_matter(backwards: Machine, mode: str) -> None:
    values = np.concatenate([normal(6, 33_000), special(), INPUTS["sine_5000"]()])
    stream = backwards.encode(torch.from_numpy(values), 1e-3, mode)
    assert stream == encode_stream(values, 1e-3, mode)
    expected = torch.from_numpy(decode_stream(stream, len(values), 1e-3, mode))
    assert_same_bits(decoded(backwards, stream, len(values), 1e-3, mode), expected)


# ---- Types and addresses ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_value_is_widened_as_torch_does(machine: Machine, dtype: torch.dtype) -> None:
    bits = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    values = bits.view(dtype)
    assert machine.encode(values, 1e-3, "fixed") == encode_stream(
        values.float().numpy(), 1e-3, "fixed"
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("exponent", [-40, -26, -25, -24, -12, -3, 2, 100])
def test_results_are_rounded_as_torch_does(
    machine: Machine, dtype: torch.dtype, exponent: int
) -> None:
    quanta = np.random.default_rng(8).integers(-(2**18), 2**18, 8192)
    quanta[:4096] >>= 9
    bound = 2.0**exponent
    stream = encode_stream(quanta.astype(np.float32) * np.float32(2 * bound), bound)
    wide = torch.from_numpy(decode_stream(stream, 8192, bound))
    back = decoded(machine, stream, 8192, bound, "fixed", dtype)
    assert_same_bits(back, wide.to(dtype))


@EACH_DTYPE
def test_values_at_the_ends_of_a_type(machine: Machine, dtype: torch.dtype) -> None:
    # By 1: 65504 is the largest half, 65519 rounds to it and 65520 to infinity.
    quanta = [65504, 65519, 65520, 65521, 2**31 - 1, -65519, -65520, 0, 1, -1]
    stream = encode_stream(np.array(quanta, np.float32), 0.5)
    wide = torch.from_numpy(decode_stream(stream, len(quanta), 0.5))
    assert_same_bits(decoded(machine, stream, 10, 0.5, "fixed", dtype), wide.to(dtype))
    huge = torch.from_numpy(decode_stream(stream, len(quanta), 1e38))
    assert_same_bits(decoded(machine, stream, 10, 1e38, "fixed", dtype), huge.to(dtype))


@EACH_DTYPE
@EACH_MODE
@pytest.mark.parametrize("by", [1, 4])
def test_tensors_may_start_anywhere(
    machine: Machine, dtype: torch.dtype, mode: str, by: int
) -> None:
    values = torch.from_numpy(normal(9, 1000)).to(dtype)
    stream = machine.encode(shifted(values, by), 1e-3, mode)
    assert stream == encode_stream(values.float().numpy(), 1e-3, mode)
    out = shifted(torch.zeros_like(values), by)
    machine.decode(shifted(bytes_of(stream), by), out, 1e-3, mode)
    expected = torch.from_numpy(decode_stream(stream, 1000, 1e-3, mode)).to(dtype)
    assert_same_bits(out, expected)


# ---- Damage -----------------------------------------------------------------------------------


def assert_refused(machine: Machine, stream: bytes, count: int, mode: str, match: str) -> None:
    out = torch.full((count,), SENTINEL)
    with pytest.raises(CodecError, match=match):
        machine.decode(torch.from_numpy(np.frombuffer(stream, np.uint8).copy()), out, 1e-3, mode)
    assert (out == SENTINEL).all(), "a refused stream was decoded in part"


def good_stream(mode: str) -> bytes:
    return encode_stream(normal(3, 100) + np.float32(1), 1e-3, mode)


@EACH_MODE
@pytest.mark.parametrize("change", [-4, -1, 1, 4, 1024])
def test_stream_of_another_length_is_refused(machine: Machine, mode: str, change: int) -> None:
    stream = good_stream(mode)
    damaged = stream[:change] if change < 0 else stream + bytes(change)
    match = f"{len(damaged)} bytes where the rates call for {len(stream)}"
    assert_refused(machine, damaged, 100, mode, match)


@EACH_MODE
@pytest.mark.parametrize("kept", [0, 1, 1023])
def test_stream_without_all_rates_is_refused(machine: Machine, mode: str, kept: int) -> None:
    assert_refused(machine, good_stream(mode)[:kept], 100, mode, f"{kept} bytes are too few")


@pytest.mark.parametrize(
    ("mode", "rate"),
    [(mode, rate) for mode in ("fixed", "plain") for rate in (32, 127, 128, 255)]
    + [("outlier", rate) for rate in (32, 64, 96, 127)],
)
def test_rate_that_no_encoder_writes_is_refused(machine: Machine, mode: str, rate: int) -> None:
    for block in (0, 3):
        stream = bytearray(good_stream(mode))
        stream[block] = rate
        assert_refused(machine, bytes(stream), 100, mode, "a rate that no encoder writes")


@EACH_MODE
@pytest.mark.parametrize("block", [4, 31, 32, 1023])
def test_rate_past_the_last_block_is_refused(machine: Machine, mode: str, block: int) -> None:
    stream = bytearray(good_stream(mode)) + bytes(8)
    stream[block] = 1
    assert_refused(machine, bytes(stream), 100, mode, "a rate that no encoder writes")


@EACH_MODE
def test_damage_in_a_later_superblock_is_found(machine: Machine, mode: str) -> None:
    stream = bytearray(encode_stream(normal(1, 70_000), 1e-2, mode))
    stream[2050] ^= 0x60
    with pytest.raises(CodecError):
        decoded(machine, bytes(stream), 70_000, 1e-2, mode)


@EACH_MODE
def test_random_damage_to_rates_is_refused_or_harmless(machine: Machine, mode: str) -> None:
    generator = np.random.default_rng(5)
    for _ in range(30):
        stream = bytearray(good_stream(mode))
        for place in generator.integers(0, 6, 2):
            stream[place] = generator.integers(0, 256)
        try:
            expected = decode_stream(bytes(stream), 100, 1e-3, mode)
        except CodecError as error:
            assert_refused(machine, bytes(stream), 100, mode, re.escape(str(error)))
        else:
            back = decoded(machine, bytes(stream), 100, 1e-3, mode)
            assert_same_bits(back, torch.from_numpy(expected))


# ---- The host side ----------------------------------------------------------------------------


def test_plans_are_of_kernels_in_the_source() -> None:
    text = cuda.source()
    plain = re.findall(r"^([a-z]\w*)\(", text, re.MULTILINE)
    typed = re.findall(r"^ +(\w+)_##name\(", text, re.MULTILINE)
    kinds = re.findall(r"^KERNELS_FOR\((\w+),", text, re.MULTILINE)
    found = {*plain, *(f"{step}_{kind}" for step in typed for kind in kinds)}
    assert found == set(cuda.kernel_names())


def test_arguments_have_the_widths_of_the_parameters(shim: Shim) -> None:
    out = torch.empty(100)
    stream = torch.from_numpy(np.frombuffer(good_stream("plain"), np.uint8).copy())
    plans = [cuda.plan_encode(out, 1e-3, "plain")[1], cuda.plan_decode(stream, out, 1, "plain")[1]]
    for launch in [launch for plan in plans for launch in plan]:
        assert [cell.itemsize for cell in launch.arguments] == shim.sizes(launch.kernel)
    assert all(shim.sizes(name) for name in cuda.kernel_names())


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("damaged", [False, True])
def test_starts_of_many_superblocks(shim: Shim, count: int, damaged: bool) -> None:
    sums = np.random.default_rng(count).integers(0, 1024 * 128, count)
    area = 1 << 33  # places take 64 bits
    begins, needed = sums.copy(), np.zeros(1, np.int64)
    if damaged:
        begins[count // 2] = -1
    places = [np.uint64(array.ctypes.data) for array in (begins, needed)]
    arguments = (places[0], np.int64(count), np.int64(area), places[1])
    shim.run([cuda.Launch("starts", 1, 1024, arguments)])
    if damaged:
        assert needed == [-1]
    else:
        assert needed == [area + sums.sum()]
        np.testing.assert_array_equal(begins, area + np.cumsum(sums) - sums)


@pytest.mark.parametrize("count", [1, 2048, 2049, 32768, 32769, 1 << 26, (1 << 31) - 1, 1 << 31])
def test_grids_cover_every_value_and_every_rate(count: int) -> None:
    values = torch.empty(count, device="meta")
    encoded, launches = cuda.plan_encode(values, 1e-3, "fixed")
    rate_area = -(-count // 32768) * 1024
    assert encoded.buffer.numel() == rate_area + 128 * -(-count // 32)
    grids = {launch.kernel: launch.grid * launch.block for launch in launches}
    assert list(grids) == ["rates_f32", "lengths", "starts", "payloads_f32"]
    assert grids["rates_f32"] == 4 * rate_area
    assert grids["lengths"] == rate_area
    assert 0 <= grids["payloads_f32"] * 8 - count < 2048
    assert max(launch.grid for launch in launches) < 2**31


def test_unusable_arguments_are_refused() -> None:
    values = torch.zeros(64)
    stream = torch.zeros(1024, dtype=torch.uint8)
    with pytest.raises(InputError, match="no mode 'rough'; it has fixed, plain, outlier"):
        cuda.plan_encode(values, 1e-3, "rough")
    with pytest.raises(InputError, match="float64"):
        cuda.plan_encode(values.double(), 1e-3, "fixed")
    with pytest.raises(InputError, match="contiguous"):
        cuda.plan_encode(values[::2], 1e-3, "fixed")
    with pytest.raises(InputError, match=r"the output .*float64"):
        cuda.plan_decode(stream, values.double(), 1e-3, "fixed")
    with pytest.raises(InputError, match=r"float32; give contiguous uint8"):
        cuda.plan_decode(values, values, 1e-3, "fixed")


@pytest.mark.parametrize("bound", [0.0, -1e-3, 1e-46, 1e-40, float("nan"), float("inf")])
def test_bound_without_a_finite_inverse_is_refused(bound: float) -> None:
    with pytest.raises(InputError, match="bound"):
        cuda.plan_encode(torch.zeros(1), bound, "fixed")


class Recorded(torch.Tensor):
    """Knows on which stream it was used."""

    def record_stream(self, stream: Any) -> None:
        stream.used.append(self.data_ptr())


class FakeCupy(ModuleType):
    """Notes on which device and stream it launches, and launches in the shim."""

    def __init__(self, shim: Shim) -> None:
        super().__init__("cupy")
        self.shim, self.current, self.log = shim, [], []
        self.cuda = SimpleNamespace(
            Device=lambda index: self.inside(("device", index)),
            ExternalStream=lambda address, index: self.inside(("stream", address, index)),
        )

    def inside(self, what: tuple[object, ...]) -> Any:
        fake = self

        class Inside(nullcontext):
            def __enter__(self) -> None:
                fake.current.append(what)

            def __exit__(self, *_: object) -> None:
                fake.current.remove(what)

        return Inside()

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # noqa: N802
        assert code == cuda.source()
        assert "--use_fast_math" not in options
        return SimpleNamespace(get_function=lambda name: lambda *how: self.launch(name, *how))

    def launch(self, name: str, grid: tuple[int], block: tuple[int], arguments: Any) -> None:
        self.log.append((name, *self.current))
        self.shim.run([cuda.Launch(name, *grid, *block, arguments)])


@pytest.fixture
def _fresh_module() -> Iterator[None]:
    cuda._module.cache_clear()
    cuda._kernel.cache_clear()
    yield
    cuda._module.cache_clear()
    cuda._kernel.cache_clear()


@pytest.mark.usefixtures("_fresh_module")
def test_everything_is_launched_on_the_stream_given(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeCupy(shim)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda, "on", lambda _: nullcontext())
    device, waits = torch.device("cpu"), []
    stream: Any = SimpleNamespace(
        device=device, cuda_stream=0xCAFE, used=[], synchronize=lambda: waits.append(1)
    )
    values = torch.from_numpy(normal(3, 100)).as_subclass(Recorded)
    encoded = cuda.encode(values, 1e-3, "plain", stream)
    assert not waits
    exact = encoded.exact()
    assert waits == [1]
    assert exact.numpy().tobytes() == encode_stream(normal(3, 100), 1e-3, "plain")
    out = torch.zeros(100).as_subclass(Recorded)
    decoding = cuda.decode(exact.as_subclass(Recorded), out, 1e-3, "plain", stream)
    decoding.check()
    assert out.tolist() == decode_stream(exact.numpy(), 100, 1e-3, "plain").tolist()
    encoding = ("rates_f32", "lengths", "starts", "payloads_f32")
    kernels = (*encoding, "lengths", "starts", "decode_f32")
    place = (("device", None), ("stream", 0xCAFE, None))
    assert fake.log == [(kernel, *place) for kernel in kernels]
    assert stream.used == [values.data_ptr(), exact.data_ptr(), out.data_ptr()]


def test_tensor_of_another_device_than_the_stream_is_refused() -> None:
    stream: Any = SimpleNamespace(device=torch.device("cuda", 1))
    values, payload = torch.zeros(4), torch.zeros(1024, dtype=torch.uint8)
    with pytest.raises(InputError, match="values is on cpu and the stream on cuda:1"):
        cuda.encode(values, 1e-3, "fixed", stream)
    with pytest.raises(InputError, match="the payload is on cpu"):
        cuda.decode(payload, values, 1e-3, "fixed", stream)


@pytest.mark.usefixtures("_fresh_module")
def test_without_cupy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(cuda, "on", lambda _: nullcontext())
    stream: Any = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(InputError, match=r"pip install 'offsim\[gpu\]'"):
        cuda.encode(torch.zeros(4), 1e-3, "fixed", stream)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_source_compiles_without_a_warning(architecture: str) -> None:
    nvrtc = pytest.importorskip(
        "cupy_backends.cuda.libs.nvrtc", reason="needs CuPy: pip install 'offsim[gpu]'"
    )
    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"needs NVRTC: pip install nvidia-cuda-nvrtc ({error})")
    program = nvrtc.createProgram(cuda.source(), "cuszp.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"-arch={architecture}", "--std=c++17"))
    finally:
        assert nvrtc.getProgramLog(program).strip("\0\n ") == ""
    assert nvrtc.getCUBIN(program).startswith(b"\x7fELF")
    nvrtc.destroyProgram(program)
