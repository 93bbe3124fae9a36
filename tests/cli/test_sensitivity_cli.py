import json
from pathlib import Path

import pytest

from offsim.report.style import new_figure
from offsim.study.sensitivity_design import Timing
from tests.study.sensitive import QuadraticMeter

from .test_cli import run

LEAST = (
    "--minutes",
    "0.0001",
    "--source",
    "uniform",
    "--bounds",
    "sigma:0.125,sigma:0.25,sigma:0.5",
)


@pytest.fixture(autouse=True)
def meter(monkeypatch: pytest.MonkeyPatch) -> QuadraticMeter:
    """Nothing takes time: no model is loaded, and one figure stands for all."""
    made = QuadraticMeter()
    monkeypatch.setattr("offsim.study.sensitivity.ModelMeter", lambda *_: made)
    monkeypatch.setattr("offsim.testbed.load.load", lambda: None)
    timing = Timing(cell_s=1.0, ask_s=1.0)
    monkeypatch.setattr("offsim.study.sensitivity.timed", lambda *_: timing)
    monkeypatch.setattr("offsim.report.sensitivity.figures", lambda _: {"layers": new_figure(1.0)})
    return made


def test_a_folder_gets_the_file_the_tables_and_the_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "sensitivity", *LEAST, "--out", str(out)) == 0
    assert {path.name for path in out.iterdir()} == {
        "design.json",
        "trials.jsonl",
        "sensitivity.json",
        "cells.csv",
        "joints.csv",
        "layers.png",
        "report.html",
    }
    shown = capsys.readouterr()
    assert "9 cells (9 of layers) at 3 bounds with 1 seed, and 6 joint injections" in shown.err
    for word in ("MEASURED", "ESTIMATED", "by sigma", "0.125", "always", "Kendall tau 1.000"):
        assert word in shown.out


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (1e9, "all are within 25%, up to a predicted KL of"),
        (0.7, "beyond that the loss need not add up"),
        (0.01, "there is no size up to which 90% of ten or more are within 25%"),
    ],
)
def test_how_far_losses_add_up_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    meter: QuadraticMeter,
    most: float,
    said: str,
) -> None:
    meter.most = most
    monkeypatch.setattr("offsim.study.sensitivity_design.LEAST_JOINTS", 12)
    assert run(monkeypatch, "sensitivity", *LEAST, "--out", str(tmp_path)) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_few_joint_injections_are_said_to_be_too_few(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "sensitivity", *LEAST, "--out", str(tmp_path)) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "to say up to which size losses add up takes 10 or more" in told


def test_json_is_for_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, "sensitivity", *LEAST, "--out", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "offsim-sensitivity"
    assert told["additivity"]["worst"] < 1e-6
    assert told["terms"]["label"] == "ESTIMATED"


def test_what_is_there_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, meter: QuadraticMeter
) -> None:
    arguments = ("sensitivity", *LEAST, "--out", str(tmp_path / "out"), "--json")
    assert run(monkeypatch, *arguments) == 0
    before = len(meter.measured)
    assert run(monkeypatch, *arguments) == 0
    assert len(meter.measured) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--minutes", "0"), "--minutes is a number above 0, not 0"),
        (("--minutes", "inf"), "--minutes is a number above 0, not inf"),
        (("--bounds", "sigma:0.1"), "two bounds or more"),
        (("--bounds", "sigma:0.2,sigma:0.1"), "rise"),
        (("--bounds", "sigma:0.1,much"), "'much' is not a bound"),
        (("--source", "codec:rtn-int8"), "takes no bound"),
        (("--source", "codec:none"), "none"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert run(monkeypatch, "sensitivity", "--out", str(tmp_path / "out"), *arguments) == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert told.startswith("offsim: ")
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_design_in_the_folder_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run(monkeypatch, "sensitivity", *LEAST, "--out", out) == 0
    capsys.readouterr()
    assert run(monkeypatch, "sensitivity", *LEAST, "--seed", "2", "--out", out) == 2
    assert "whose seed is 0, not 2" in capsys.readouterr().err
