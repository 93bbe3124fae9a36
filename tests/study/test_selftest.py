import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from offsim.codec import golden
from offsim.codec.golden import GOLDEN, INPUTS
from offsim.errors import CodecError
from offsim.runtime.devices import Cpu, Cuda, Device
from offsim.study import selftest as module
from offsim.study.calibrate import Effort
from offsim.study.selftest import SelfTest, selftest
from offsim.study.subject import ModelSubject
from tests.codec.cuszp_cases import CASES
from tests.codec.cuszp_cases import INPUTS as OFFICIAL_INPUTS
from tests.runtime.devices.fake_cuda import FakeCuda, FakeCupy, Quick


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = Effort(rounds=1, requests=1, tokens=3, repeats=1)
    monkeypatch.setattr(module, "EFFORT", effort)
    monkeypatch.setattr(module, "STORAGES", (("raw", 0.0), ("cuszp", 2.0**-9)))
    for name, value in {"REQUESTS": 1, "TOKENS": 3, "REPEATS": 1, "SLOTS": 2}.items():
        monkeypatch.setattr(module, name, value)


def tried(model: PreTrainedModel, device: Device, out: Path | None = None) -> SelfTest:
    return selftest(device, out, subject=ModelSubject(model, "tiny", device))


def test_the_golden_streams_are_those_of_the_official_library() -> None:
    official = {(case["stream"], case["decoded"]): case for case in CASES}
    for one in GOLDEN:
        case = official[one.stream, one.decoded]
        make, checksum = INPUTS[one.values]
        assert (case["mode"], case["eb"], case["input"]) == (one.mode, golden.BOUND, checksum)
        assert make().tolist() == OFFICIAL_INPUTS[case["name"]]().tolist()
    assert len({(one.values, one.mode) for one in GOLDEN}) == 9


def test_everything_passes_on_the_cpu_and_leaves_a_report(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    result = tried(tiny_model, Cpu(), tmp_path)
    assert result.passed, result.to_text()
    names = [one.name for one in result.tried]
    assert "cuszp outlier, ties" in names
    assert "codec sz3" in names
    assert names[-3:] == ["loop without error", "policy raw 0", "policy cuszp 0.00195312"]
    written = json.loads((tmp_path / "selftest.json").read_text(encoding="utf-8"))
    assert written["passed"] is True
    assert written["version"] == 1
    assert len(written["policies"]) == 2
    assert "offsim" in written["machine"]["versions"]
    text = (tmp_path / "selftest.txt").read_text(encoding="utf-8")
    assert text.endswith("PASSED\n")
    assert "SIMULATED" in text
    assert "MEASURED" in text


def test_everything_passes_on_a_cuda_device_that_is_not_there(
    tiny_model: PreTrainedModel,
) -> None:
    fake = FakeCuda()
    cupy = FakeCupy(fake, Quick())
    result = tried(tiny_model, Cuda(fake, cupy, "cpu"))
    assert result.passed, result.to_text()
    assert result.device == "a CUDA device that is not there, CuPy 0"
    assert {"decode_f32", "decode_bf16"} <= set(cupy.launched)
    left_out = {one.name for one in result.tried if one.found.startswith("left out")}
    assert {"codec rtn-int8", "codec rtn-int4"} <= left_out


class Wrong(Cpu):
    """Decodes a weight of each matrix wrongly."""

    def unpack(self, blob: object, parts: object, slot: object, *, decoded: bool) -> None:
        super().unpack(blob, parts, slot, decoded=decoded)  # type: ignore[arg-type]
        slot[5] += 1.0  # type: ignore[index]


class Broken(Cpu):
    """Cannot decode."""

    def unpack(self, *_: object, **__: object) -> None:
        raise CodecError("there are no kernels")


def test_a_device_that_decodes_wrongly_fails(tiny_model: PreTrainedModel) -> None:
    result = tried(tiny_model, Wrong())
    failed = {one.name for one in result.tried if not one.passed}
    assert {"cuszp fixed, hashes", "codec raw", "codec sz3", "loop without error"} <= failed
    assert result.to_text().endswith("FAILED\n")


def test_a_device_that_cannot_decode_fails_and_the_report_says_why(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    result = tried(tiny_model, Broken(), tmp_path)
    assert not result.passed
    text = (tmp_path / "selftest.txt").read_text(encoding="utf-8")
    assert "FAILED  codec raw (0.0 s): CodecError: there are no kernels" in text
    assert "FAILED  loop and short check" in text


def test_a_stream_that_is_not_official_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(GOLDEN[0], stream="0" * 64)
    assert module._golden(wrong, Cpu()) == (
        False,
        "another stream than that of the official library",
    )
    assert module._golden(replace(GOLDEN[0], decoded="0" * 64), Cpu())[0] is False
    assert module._golden(GOLDEN[0], Cpu())[0] is True
