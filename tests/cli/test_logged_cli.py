"""`offsim check --from` and `offsim calibrate --from-run`."""

import json
from pathlib import Path

import pandas as pd
import pytest

from offsim.calibration.schema import Calibration
from offsim.files import read_yaml
from offsim.study.measured import Engine
from offsim.trace import save_trace
from tests.builders import TOY
from tests.study.logs import BYTES, COMPUTE_S, LOAD_S, csv_of, known, logged, routed

from .test_cli import run

TRACE = routed()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A trace and the log of a run whose cache held 30 experts in one pool."""
    save_trace(TRACE, tmp_path / "t.safetensors")
    save_trace(TOY, tmp_path / "toy.safetensors")
    log = logged(TRACE, Engine(30 * BYTES), known(TRACE))
    (tmp_path / "run.csv").write_text(csv_of(log))
    (tmp_path / "short.csv").write_text("\n".join(csv_of(log).splitlines()[:9]) + "\n")
    return tmp_path


CHECK = "check --from {here}/run.csv --trace {here}/t.safetensors --out {here}/out"
CALIBRATE = "calibrate --from-run {here}/run.csv --trace {here}/t.safetensors --out {here}/c.yaml"


def test_a_log_is_predicted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = CHECK.format(here=here) + f" --capacity 30000 --figure {here}/x.png --json"
    assert run(monkeypatch, *asked.split()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((here / "out" / "held_out.json").read_text())
    assert (shown["label"], shown["tokens_compared"]) == ("SIMULATED", 18)
    assert shown["engine"] == "lru 0.0286102 MiB, one pool"
    assert abs(shown["overall"]["mean_s"]["error"]) < 1e-3
    assert shown["fitted"]["load_s"] == pytest.approx(LOAD_S, rel=1e-3)
    assert len(pd.read_csv(here / "out" / "held_out.csv")) == 35
    assert read_yaml(here / "out" / "held_out.yaml", Calibration).measured
    assert (here / "x.png").read_bytes().startswith(b"\x89PNG")


def test_it_prints_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = CHECK.format(here=here) + " --capacity 30000 --fit alternate --centre mean"
    assert run(monkeypatch, *asked.split()) == 0
    shown = capsys.readouterr().out
    assert "16 of 35 tokens of run.csv, lru" in shown
    assert "MEASURED against SIMULATED" in shown
    assert "mean of the fitted" in shown
    assert "hit rate, %" in shown
    assert "fitted on the others: 19 tokens, compute 30 ms a token" in shown


def test_a_fitted_calibration_predicts_another_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = CALIBRATE.format(here=here) + " --capacity 5slots"
    assert run(monkeypatch, *asked.split()) == 0
    assert "35 tokens, compute 30 ms a token" in capsys.readouterr().out
    made = read_yaml(here / "c.yaml", Calibration)
    token_s = 6 * (made.compute.dense[0].seconds.value + 2 * made.compute.expert[0].seconds.value)
    assert token_s == pytest.approx(COMPUTE_S)
    asked = CHECK.format(here=here) + f" --capacity 5slots --calibration {here}/c.yaml"
    assert run(monkeypatch, *asked.split()) == 0
    shown = capsys.readouterr().out
    assert "35 of 35 tokens" in shown
    assert "mean of the fitted" not in shown
    assert not (here / "out" / "held_out.yaml").exists()


def test_a_calibration_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = CALIBRATE.format(here=here) + " --capacity 5slots --json"
    assert run(monkeypatch, *asked.split()) == 0
    assert json.loads(capsys.readouterr().out)["link"]["label"] == "MEASURED"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (CHECK, "a log does not say how large the cache was; give --capacity"),
        (f"{CHECK} --capacity much", "--capacity is such as 64MiB"),
        (f"{CHECK} --capacity 4slots --cache best", "no cache is called 'best'"),
        (f"{CHECK} --capacity 4slots --quick", "--quick is of no use with --from"),
        (f"{CHECK} --capacity 4slots --prefetch gate", "--prefetch is of no use with --from"),
        (f"{CHECK} --capacity 4slots --hidden 8", "--hidden is of no use with --from"),
        (f"{CHECK} --capacity 4slots --dense 0", "--dense is of no use with --from"),
        (f"{CHECK} --capacity 4slots --column x", "--column is such as wall_ms=latency, not x"),
        (f"{CHECK} --capacity 4slots --column x=y", "a log has no column 'x'"),
        (f"{CHECK} --capacity 4slots --column step=", "there is no column step"),
        (
            f"{CHECK} --capacity 4slots --calibration none --fit first",
            "--fit is of no use with --calibration",
        ),
        ("check --from {here}/run.csv --capacity 4slots", "give --trace"),
        (
            "check --from {here}/none.csv --trace {here}/t.safetensors --capacity 4slots",
            "none.csv: cannot be read",
        ),
        (
            "check --from {here}/short.csv --trace {here}/t.safetensors --capacity 4slots",
            "short.csv has 8 tokens and the trace 35 decode steps",
        ),
        (
            "check --from {here}/run.csv --trace {here}/toy.safetensors --capacity 4slots",
            "give --expert-bytes",
        ),
        ("check", "give --calibration, or a log by --from"),
        ("check --capacity 4slots", "--capacity is of the log of a run; give one with --from"),
        ("check --fit first", "--fit is of the log of a run; give one with --from"),
        (f"{CALIBRATE} --capacity 4slots --quick", "--quick is of no use with --from-run"),
        (f"{CALIBRATE} --capacity 4slots --codec raw", "--codec is of no use with --from-run"),
        (
            "calibrate --out {here}/c.yaml --expert-bytes 8",
            "--expert-bytes is of the log of a run; give one with --from-run",
        ),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    here: Path,
    command: str,
    says: str,
) -> None:
    assert run(monkeypatch, *command.format(here=here).split()) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len([line for line in shown.err.splitlines() if line.strip()]) == 1
    assert shown.out == ""
    assert not (here / "c.yaml").exists()
