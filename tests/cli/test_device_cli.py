"""`offsim selftest`, and the commands that run on a device."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from offsim.runtime.devices import CPU, Device
from offsim.study import selftest as module
from offsim.study.selftest import SelfTest, Tried

from .test_cli import run

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@NO_CUDA
@pytest.mark.parametrize("command", ["run", "selftest"])
def test_without_a_cuda_device_one_sentence_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, command, "--device", "cuda") == 2
    says = capsys.readouterr().err
    assert says.startswith("offsim: the device cuda cannot be used here: torch ")
    assert says.count("\n") == 1
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
