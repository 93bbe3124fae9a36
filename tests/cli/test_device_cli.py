"""`offsim selftest`, and the commands that run on a device."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel

from offsim.runtime.devices import CPU, DEVICES, Cuda, Device
from offsim.study import calibrate as calibrating
from offsim.study import plan as plans
from offsim.study import selftest as module
from offsim.study import study
from offsim.study.calibrate import Effort
from offsim.study.plan import Plan
from offsim.study.selftest import SelfTest, Tried
from offsim.study.subject import ModelSubject
from tests.runtime.devices.fake_cuda import FakeCuda, FakeCupy, Quick

from .test_cli import run

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@NO_CUDA
@pytest.mark.parametrize(
    "command", ["run", "selftest", "calibrate --out c.yaml", "check --calibration none"]
)
def test_without_a_cuda_device_one_sentence_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *command.split(), "--device", "cuda") == 2
    says = capsys.readouterr().err
    assert says.startswith("offsim: the device cuda cannot be used here: torch ")
    assert says.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "option"),
    [("calibrate --out c.yaml", "--from-run"), ("check", "--from")],
)
def test_a_device_measures_nothing_of_a_log(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    option: str,
) -> None:
    assert run(monkeypatch, *command.split(), option, "run.csv", "--device", "cuda") == 2
    says = f"offsim: --device is of no use with {option}; leave it out\n"
    assert capsys.readouterr().err == says


@pytest.fixture
def not_there(monkeypatch: pytest.MonkeyPatch, tiny_model: PreTrainedModel) -> None:
    """A CUDA device that is not there, and the tiny model in the place of the embedded one."""

    def embedded(device: Device = CPU) -> ModelSubject:
        return ModelSubject(tiny_model, study.MODEL, device)

    def cuda() -> Cuda:
        fake = FakeCuda()
        return Cuda(fake, FakeCupy(fake, Quick()), "cpu")

    monkeypatch.setitem(DEVICES, "cuda", cuda)
    monkeypatch.setattr(study, "embedded", embedded)
    monkeypatch.setattr(calibrating, "QUICK", Effort(rounds=1, requests=1, tokens=3, repeats=1))


def test_a_calibration_of_a_device_is_written_shown_and_checked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    not_there: None,
) -> None:
    path = tmp_path / "c.yaml"
    command = ("calibrate", "--out", str(path), "--quick", "--device", "cuda")
    assert run(monkeypatch, *command, "--codec", "cuszp:0.001953125") == 0
    shown = capsys.readouterr()
    for says in (
        "Codecs on this machine, ratios against the stored dtype [MEASURED]",
        "GB/s to a CUDA device that is not there, CuPy 0 [MEASURED]",
        "pageable x4",
        "simulations go by `pinned`",
        "Decoding one expert on a CUDA device that is not there, CuPy 0 [MEASURED]",
        "offsim's kernels",
        f"calibration: {path}",
    ):
        assert says in shown.out
    notes = [line for line in shown.err.splitlines() if "note" in line]
    assert [note.split(": ")[2:4] for note in notes] == [
        ["left out", "the official cuSZp library"],
        ["left out", "nvCOMP"],
    ]
    assert "pip install 'offsim[nvcomp]'" in notes[1]
    plan = Plan(
        calibrating.QUICK, requests=1, tokens=2, slots=(2,), paces=(1.0,), repeats=1, items=0
    )
    monkeypatch.setattr(plans, "QUICK_PLAN", plan)
    check = ("check", "--calibration", str(path), "--out", str(tmp_path / "o"), "--quick")
    assert run(monkeypatch, *check, "--device", "cuda") == 0
    assert "2 policies" in capsys.readouterr().out
    assert run(monkeypatch, *check) == 2
    assert "and this check runs on the CPU" in capsys.readouterr().err


def test_a_codec_that_a_device_cannot_decode_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    not_there: None,
) -> None:
    command = ("calibrate", "--out", str(tmp_path / "c.yaml"), "--device", "cuda")
    assert run(monkeypatch, *command, "--codec", "rtn-int8") == 2
    says = "offsim: codec rtn-int8 has no kernels for the device cuda; take raw, cuszp or a codec"
    assert capsys.readouterr().err.startswith(says)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_nobody_knows_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "--device", "tpu") == 2
    assert "'tpu'" in capsys.readouterr().err


@pytest.mark.parametrize("passed", [True, False])
def test_a_selftest_shows_what_it_tried(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    passed: bool,
) -> None:
    asked = []

    def short(device: Device, out: Path, progress: object) -> SelfTest:
        asked.append((device, out))
        tried = [Tried("codec raw", passed, "largest error 0", 0.1)]
        return SelfTest("made up", tried, pd.DataFrame(), {"machine": {}, "label": "MEASURED"})

    monkeypatch.setattr(module, "selftest", short)
    assert run(monkeypatch, "selftest", "--out", str(tmp_path)) == (0 if passed else 1)
    shown = capsys.readouterr().out
    assert f"{'passed' if passed else 'FAILED'}; report: {tmp_path / 'selftest.txt'}" in shown
    assert "codec raw" in shown
    assert run(monkeypatch, "selftest", "--out", str(tmp_path), "--json") == (0 if passed else 1)
    assert json.loads(capsys.readouterr().out)["passed"] is passed
    assert asked == [(CPU, tmp_path)] * 2
