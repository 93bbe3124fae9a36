import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from offsim.codec import codec_named
from offsim.codec.cuszp import decode_stream
from offsim.codec.cuszp_kernels.official import OfficialCuszp
from offsim.codec.nvcomp import ALGORITHMS
from offsim.errors import RunError
from offsim.runtime.devices import Cuda
from offsim.runtime.store import ExpertStore
from offsim.study import decoders as module
from offsim.study.decoders import NVCOMP, OWN, DecoderSampler
from offsim.study.prepare import Key
from tests.codec.cuszp_kernels.test_official import HostMemory, StandIn, build
from tests.codec.test_nvcomp import Manager
from tests.codec.test_nvcomp import StandIn as NvcompStandIn
from tests.runtime.devices.fake_cuda import FakeCuda, FakeCupy, Quick
from tests.runtime.test_driven import MODEL

BOUNDS = (2.0**-6, 2.0**-5)


@pytest.fixture
def cupy() -> FakeCupy:
    return FakeCupy(FakeCuda(), Quick())


@pytest.fixture
def device() -> Cuda:
    fake = FakeCuda()
    return Cuda(fake, FakeCupy(fake, Quick()), "cpu")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("v3"))


@pytest.fixture(scope="module")
def stores() -> dict[Key, ExpertStore]:
    keys = [("raw", 0.0), *(("cuszp", bound) for bound in BOUNDS), ("cuszp:mode=plain", BOUNDS[0])]
    return {key: ExpertStore.holding(MODEL, codec_named(key[0]), key[1]) for key in keys}


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFSIM_CUSZP_LIBRARY", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", None)


def official(monkeypatch: pytest.MonkeyPatch, path: Path, off_by: float = 0.0) -> None:
    """A library that is told before each call what it would decode to."""
    stand_in = StandIn(path)

    class Told(OfficialCuszp):
        def decompress(
            self,
            payload: torch.Tensor,
            out: torch.Tensor,
            bound: float,
            mode: str,
            verify: bool = True,
        ) -> None:
            values = decode_stream(payload.numpy().data, out.numel(), bound, mode)
            stand_in.prepare((values + off_by).astype("f4").tobytes())
            super().decompress(payload, out, bound, mode, verify)

    monkeypatch.setenv("OFFSIM_CUSZP_LIBRARY", str(path))
    monkeypatch.setattr(module, "DeviceMemory", lambda place: HostMemory())
    monkeypatch.setattr(module, "OfficialCuszp", Told)


def sampled(device: Cuda, stores: dict[Key, ExpertStore], rounds: int = 2) -> DecoderSampler:
    sampler = DecoderSampler(device, MODEL.matrices(0, 0), stores)
    for _ in range(rounds):
        sampler.round(3)
    return sampler


def test_the_kernels_decode_under_each_bound_and_the_rest_is_named(
    device: Cuda, stores: dict[Key, ExpertStore]
) -> None:
    sampler = sampled(device, stores)
    found = [(one.decoder, one.codec, one.bound) for one in sampler.figures()]
    assert found == [(OWN, *key) for key in stores if key[0] != "raw"]
    for one, store in zip(sampler.figures(), [*stores.values()][1:], strict=True):
        assert one.blob_bytes == store.blob_bytes[0][0]
        assert one.ratio == pytest.approx(MODEL.shape.bytes / one.blob_bytes)
        assert one.decode_s.label == "MEASURED"
        assert one.decode_s.samples == 3
        assert one.decode_s.value > 0
    cuszp, nvcomp = sampler.left_out
    assert cuszp.startswith("the official cuSZp library: the official cuSZp needs a CUDA device")
    assert nvcomp.startswith("nvCOMP: the codec nvcomp needs nvCOMP (")
    assert nvcomp.endswith("run: pip install 'offsim[nvcomp]'")


def test_a_library_that_is_not_there_is_named_with_what_to_do(
    device: Cuda, stores: dict[Key, ExpertStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DeviceMemory", lambda place: HostMemory())
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    left_out = DecoderSampler(device, MODEL.matrices(0, 0), stores).left_out[0]
    assert left_out.startswith("the official cuSZp library: no official cuSZp library was found")
    assert "set OFFSIM_CUSZP_LIBRARY to the path of a libcuSZp.so of release V3" in left_out


def test_the_official_library_decodes_the_same_experts(
    device: Cuda,
    stores: dict[Key, ExpertStore],
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    official(monkeypatch, library)
    sampler = sampled(device, stores)
    figures = sampler.figures()
    names = [OWN, f"official cuSZp V3 ({library})"]
    assert [one.decoder for one in figures] == names * 3
    for own, theirs in zip(figures[::2], figures[1::2], strict=True):
        assert (own.codec, own.bound, own.blob_bytes) == (
            theirs.codec,
            theirs.bound,
            theirs.blob_bytes,
        )
        assert theirs.decode_s.value > 0
    assert [one.partition(":")[0] for one in sampler.left_out] == [NVCOMP]


def test_an_official_library_with_other_values_is_refused(
    device: Cuda,
    stores: dict[Key, ExpertStore],
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    official(monkeypatch, library, off_by=0.25)
    says = r"libcuSZp.so decodes to other values than offsim does; unset OFFSIM_CUSZP_LIBRARY to"
    with pytest.raises(RunError, match=says):
        DecoderSampler(device, MODEL.matrices(0, 0), stores)


def test_every_algorithm_of_nvcomp_decodes_on_the_device(
    device: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = NvcompStandIn()
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", package)
    sampler = DecoderSampler(device, MODEL.matrices(0, 0), {})
    package.calls.clear()
    sampler.round(2)
    assert set(package.calls) == {"decode"}, "nothing crosses the link where decoding is timed"
    assert len(package.calls) == len(ALGORITHMS) * 3 * (2 + 2), "three matrices, two warm up"
    figures = sampler.figures()
    assert [one.decoder for one in figures] == [NVCOMP] * len(ALGORITHMS)
    assert [one.codec for one in figures[:2]] == ["nvcomp", "nvcomp:algorithm=Bitcomp"]
    assert all(one.bound == 0 and one.ratio > 0 for one in figures)


def test_an_algorithm_that_does_not_give_weights_back_is_left_out(
    device: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.nvcomp", NvcompStandIn())
    plain = Manager.__init__

    def made(self: Manager, calls: list[str], algorithm: str) -> None:
        plain(self, calls, algorithm)
        self.encode = refused if algorithm == "Cascaded" else self.encode  # type: ignore[method-assign]

    def refused(*_: Any) -> None:
        raise RuntimeError("unsupported")

    monkeypatch.setattr(Manager, "__init__", made)
    sampler = sampled(device, {}, 1)
    assert len(sampler.figures()) == len(ALGORITHMS) - 1
    assert sampler.left_out[1] == "nvCOMP: Cascaded does not give these weights back"


def test_experts_that_cuszp_cannot_hold_are_left_out(device: Cuda) -> None:
    fine = ExpertStore.holding(MODEL, codec_named("cuszp"), 2.0**-30)
    sampler = sampled(device, {("cuszp", fine.bound): fine}, 1)
    assert sampler.figures() == []
    assert sampler.left_out[1] == (
        "cuszp 9.31323e-10: the first expert is not under this codec, which cannot keep that bound "
        "on it; take a coarser one"
    )
