import sys
import zlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offsim.codec import encode
from offsim.codec.nvcomp import ALGORITHMS, Nvcomp
from offsim.errors import CodecError, InputError

from .checks import DTYPES, assert_same_bits, tensors, weights_like


def usable() -> bool:
    try:
        Nvcomp()
    except InputError:
        return False
    return True


class Array:
    """Stands in for nvcomp.Array."""

    def __init__(self, data: Any, where: str, calls: list[str]) -> None:
        self.data, self.where, self.calls = np.asarray(data), where, calls

    def cuda(self) -> "Array":
        self.calls.append(f"to device {self.data.dtype} {self.data.nbytes}")
        return Array(self.data.copy(), "device", self.calls)

    def cpu(self) -> "Array":
        self.calls.append(f"to host {self.data.nbytes}")
        return Array(self.data.copy(), "host", self.calls)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        assert self.where == "host"
        return self.data


class StandIn(ModuleType):
    """The part of nvidia.nvcomp that is used; it compresses with zlib and records calls."""

    def __init__(self) -> None:
        super().__init__("nvidia.nvcomp")
        self.calls: list[str] = []
        self.device = True

    def as_array(self, source: Any) -> Array:
        return Array(source, "host", self.calls)

    def Codec(self, **options: Any) -> "Manager":  # noqa: N802, a class in the package
        if not self.device:
            raise RuntimeError("CUDA Runtime API failure")
        return Manager(self.calls, **options)


class Manager:
    """Stands in for nvcomp.Codec."""

    def __init__(self, calls: list[str], algorithm: str) -> None:
        self.calls = calls
        calls.append(f"codec {algorithm}")

    def encode(self, array: Array) -> Array:
        self.calls.append("encode")
        return Array(np.frombuffer(zlib.compress(array.data), np.uint8), "device", self.calls)

    def get_uncomp_buffer_size(self, array: Array) -> int:
        try:
            return len(zlib.decompress(array.data))
        except zlib.error as error:
            raise RuntimeError("Invalid value") from error

    def decode(self, array: Array) -> Array:
        self.calls.append("decode")
        return Array(np.frombuffer(zlib.decompress(array.data), np.int8), "device", self.calls)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", module)
    return module


@pytest.fixture
def calls(package: StandIn) -> list[str]:
    package.calls.clear()
    return package.calls


def test_bytes_go_to_the_device_and_back(calls: list[str]) -> None:
    weights = torch.zeros(3, 50, dtype=torch.bfloat16)
    codec = Nvcomp("LZ4")
    calls.clear()
    payload = codec.encode(weights, 0.0)
    assert payload == zlib.compress(bytes(300))
    back = f"to host {len(payload)}"
    assert calls == ["codec LZ4", "to device uint8 300", "encode", back]
    calls.clear()
    assert_same_bits(weights, codec.decode(memoryview(payload), (3, 50), torch.bfloat16, 0.0))
    there = f"to device uint8 {len(payload)}"
    assert calls == ["codec LZ4", there, "decode", "to host 300"]


def test_a_payload_on_the_device_is_decoded_there_as_often_as_wanted(calls: list[str]) -> None:
    codec = Nvcomp("LZ4")
    payload = codec.encode(torch.zeros(3, 50, dtype=torch.bfloat16), 0.0)
    calls.clear()
    decode = codec.on_device(memoryview(payload))
    assert calls == ["codec LZ4", f"to device uint8 {len(payload)}"]
    found: Any = decode()
    assert found.where == "device"
    assert found.data.tobytes() == bytes(300)
    decode()
    assert calls[2:] == ["decode"] * 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(
    derandomize=True,
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it holds no state that matters
)
@given(data=st.data())
def test_every_bit_comes_back(package: StandIn, dtype: torch.dtype, data: st.DataObject) -> None:
    weights = data.draw(tensors(dtype, shortest=1))
    payload = Nvcomp().encode(weights, 0.0)
    back = Nvcomp().decode(payload, tuple(weights.shape), dtype, 0.0)
    assert back.shape == weights.shape
    assert_same_bits(weights.view(-1), back.view(-1))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm_is_the_option(calls: list[str], algorithm: str) -> None:
    codec = Nvcomp(algorithm)
    assert calls == [f"codec {algorithm}"]
    assert codec.options() == {"algorithm": algorithm}


def test_is_an_exact_device_codec(package: StandIn) -> None:
    codec = Nvcomp()
    assert codec.promise == "exact"
    assert codec.placement == "device"
    assert str(codec) == "nvcomp"
    assert str(Nvcomp("Zstd")) == "nvcomp:algorithm=Zstd"
    assert encode(weights_like(8, 8), codec).header.codec == "nvcomp"


@pytest.mark.parametrize("shape", [(98,), (100,), (1 << 40,)], ids=str)
def test_stream_of_another_size_is_refused_before_it_is_decoded(
    calls: list[str], shape: tuple[int, ...]
) -> None:
    payload = Nvcomp().encode(weights_like(99), 0.0)
    with pytest.raises(CodecError, match="nvcomp: 198 bytes where"):
        Nvcomp().decode(payload, shape, torch.bfloat16, 0.0)
    assert "decode" not in calls


@pytest.mark.parametrize("payload", [b"", b"no stream"])
def test_what_is_no_stream_is_refused(package: StandIn, payload: bytes) -> None:
    with pytest.raises(CodecError, match="not a stream of ANS"):
        Nvcomp().decode(payload, (99,), torch.bfloat16, 0.0)


def test_what_nvcomp_refuses_is_a_codec_error(
    package: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("unsupported")

    monkeypatch.setattr(Manager, "encode", refuse)
    with pytest.raises(CodecError, match="unsupported"):
        Nvcomp().encode(weights_like(99), 0.0)


def test_unknown_algorithm_is_refused(package: StandIn) -> None:
    with pytest.raises(InputError, match="'ans'; it has ANS, Bitcomp"):
        Nvcomp("ans")


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", None)
    with pytest.raises(InputError, match=r"pip install 'offsim\[nvcomp\]'"):
        Nvcomp()


def test_without_a_device_the_remedy_is_named(
    package: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "device", False)
    with pytest.raises(InputError, match=r"no CUDA device .* run it where there is one"):
        Nvcomp()


@pytest.mark.gpu
@pytest.mark.skipif(not usable(), reason="needs the extra nvcomp and a CUDA device")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_a_device(algorithm: str, dtype: torch.dtype) -> None:
    weights = weights_like(512, 384, dtype=dtype)
    codec = Nvcomp(algorithm)
    payload = codec.encode(weights, 0.0)
    assert_same_bits(weights, codec.decode(payload, (512, 384), dtype, 0.0))
    with pytest.raises(CodecError, match="nvcomp"):
        codec.decode(payload, (512, 385), dtype, 0.0)
