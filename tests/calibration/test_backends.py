from pathlib import Path

import pytest
import torch

from offsim.calibration.backends import Backend, CpuBackend, OfficialBackend, measure_backends
from offsim.codec.cuszp import decode_stream, encode_stream
from offsim.codec.cuszp_kernels import MODES, kernels
from offsim.codec.cuszp_kernels.loops import Loops
from offsim.errors import RunError
from tests.codec.cuszp_kernels.test_official import StandIn, build

VALUES = torch.randn(3000, generator=torch.Generator().manual_seed(0)) * 0.02


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("v3"))


def test_every_backend_is_named_and_timed_in_every_mode() -> None:
    backends = [CpuBackend(kernels()), CpuBackend(Loops())]
    figures = measure_backends(backends, VALUES, 1e-3, list(MODES), 3)
    names = dict.fromkeys(backend.name for backend in backends)
    assert [(f.mode, f.kernels) for f in figures] == [(m, n) for m in MODES for n in names]
    for one in figures:
        assert one.stream_bytes == len(encode_stream(VALUES.numpy(), 1e-3, one.mode))
        assert one.encode_s.label == one.decode_s.label == "MEASURED"
        assert one.encode_s.value > 0
        assert one.decode_s.samples == 3


class Prepared(OfficialBackend):
    """The stand-in, told before each call what the library would write."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in.backend)
        self.stand_in = stand_in

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        self.stand_in.prepare(encode_stream(values.numpy(), bound, mode))
        return super().encode(values, bound, mode)

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        values = decode_stream(stream.numpy().data, len(out), bound, mode)
        self.stand_in.prepare(values.tobytes())
        super().decode(stream, out, bound, mode)


def test_the_official_library_is_measured_beside_ours_and_named(library: Path) -> None:
    stand_in = StandIn(library)
    backends = [CpuBackend(kernels()), Prepared(stand_in)]
    figures = measure_backends(backends, VALUES, 1e-3, ["fixed", "plain"], 2)
    assert [one.kernels for one in figures[1::2]] == [f"official cuSZp V3 ({library})"] * 2
    assert stand_in.last.mode == MODES["plain"]
    assert stand_in.last.calls >= 2 * 2 * 3


class Wrong(CpuBackend):
    """Kernels that are off in one way."""

    def __init__(self, what: str) -> None:
        super().__init__(kernels())
        self.name, self.what = "wrong", what

    def encode(self, values: torch.Tensor, bound: float, mode: str) -> torch.Tensor:
        stream = super().encode(values, bound, mode)
        return stream[:-1] if self.what == "encode" else stream

    def decode(self, stream: torch.Tensor, out: torch.Tensor, bound: float, mode: str) -> None:
        if self.what != "nothing":
            super().decode(stream, out, bound, mode)
        if self.what == "decode":
            out[7] += 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("encode", "wrong encodes mode plain to other bytes"),
        ("decode", "wrong decodes mode plain to other values"),
        ("nothing", "wrong decodes mode plain to other values"),
    ],
)
def test_backends_that_disagree_are_refused(what: str, message: str) -> None:
    backends: list[Backend] = [CpuBackend(kernels()), Wrong(what)]
    with pytest.raises(RunError, match=message):
        measure_backends(backends, VALUES, 1e-3, ["plain"], 1)
