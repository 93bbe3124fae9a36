import json
from pathlib import Path

import pytest

from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import calibration, codec_figures
from tests.simulate.traffic import requests_of

from .test_cli import run


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    save_trace(requests_of([(3, 2), (4, 2), (1, 2)]), tmp_path / "t.safetensors")
    shape = {"layers": 2, "experts": 6}
    write_yaml(tmp_path / "c.yaml", calibration(codec_figures(**shape), **shape))
    files = ("--trace", str(tmp_path / "t.safetensors"), "--calibration", str(tmp_path / "c.yaml"))
    return (
        "capacity",
        *files,
        "--slots",
        "6",
        "--link",
        "0.001",
        "--requests",
        "8",
        "--draws",
        "1",
    )


def test_it_shows_draws_and_prints_json(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    tmp_path: Path,
) -> None:
    picture = tmp_path / "capacity.png"
    asked = (*command, "--ttft", "40", "--load", "1000")
    assert run(monkeypatch, *asked, "--figure", str(picture)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "A machine keeps the target up to" in shown
    assert "1000 requests/s take" in shown
    assert "[SIMULATED]" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(monkeypatch, *asked, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["machines"] == -(-1000 // facts["per_s"])
    assert [load["per_s"] for load in facts["loads"] if load["holds"]][-1] == facts["per_s"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ((), "a target is a TTFT, a TPOT, or both"),
        (("--ttft", "-1"), "a target is a TTFT, a TPOT, or both"),
        (("--ttft", "1e-9", "--load", "1"), "does not keep the target for any rate"),
        (("--ttft", "1", "--cache", "belady"), "belady"),
    ],
)
def test_bad_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    more: tuple[str, ...],
    says: str,
) -> None:
    assert run(monkeypatch, *command, *more) == 2
    error = capsys.readouterr().err
    assert says in " ".join(error.split())
    assert "Traceback" not in error


def test_what_no_rate_breaks_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *command, "--tpot", "1e6") == 0
    assert "The target is kept for all 8 requests at once" in " ".join(
        capsys.readouterr().out.split()
    )
    assert run(monkeypatch, *command, "--ttft", "1e-9") == 0
    assert "does not keep the target for any rate" in " ".join(capsys.readouterr().out.split())
