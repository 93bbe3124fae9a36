import json
from pathlib import Path
from typing import Any

import pytest

from offsim.files import read_yaml, write_json, write_yaml
from offsim.policy.bounds import Bounds
from offsim.study.optimize.proof_file import Proof
from offsim.trace import save_trace
from tests.builders import calibration
from tests.study.cases import ALTERNATING
from tests.study.optimize.cases import codecs, losses
from tests.study.optimize.proofs import usual

from .test_cli import run


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, ...]:
    save_trace(ALTERNATING, tmp_path / "toy.safetensors")
    write_yaml(tmp_path / "toy.yaml", calibration(*codecs()))
    for kind in ("abs", "sigma"):
        folder = tmp_path / kind
        folder.mkdir()
        write_json(folder / "sensitivity.json", losses(kind).model_dump(mode="json"))
    files = ("--trace", tmp_path / "toy.safetensors", "--calibration", tmp_path / "toy.yaml")
    return "optimize", *map(str, files), "--slots", "1", "--link", "0.001"


def test_it_shows_writes_and_prints_json(
    given: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "bounds.yaml"
    asked = (*given, "--sensitivity", str(tmp_path / "abs"), "--budget", "kl<=3")
    assert run(monkeypatch, *asked, "--out", str(out)) == 0
    shown = capsys.readouterr().out
    assert "Bounds within kl<=3 [SIMULATED]" in shown
    assert "one bound, 0.25" in shown
    assert "stored in 3 places: 1 at 0.25, 1 at 0.5, 1 at 1" in shown
    assert "all choices within the budget; none is faster" in shown
    assert read_yaml(out, Bounds).default.value == 1.0
    assert run(monkeypatch, *asked, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["label"], facts["gap"], facts["exact"]) == ("SIMULATED", 0, True)
    assert [row["stored as"] for row in facts["rows"]] == [
        "optimised by layer",
        "raw",
        "one bound, 0.25",
        "three zones of layers",
    ]


def test_codecs_are_mixed_where_several_are_given(
    given: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    asked = (*given, "--sensitivity", str(tmp_path / "abs"), "--budget", "kl<=0.5")
    codecs = ("--codec", "cuszp", "--codec", "raw", "--codec", "cuszp")
    assert run(monkeypatch, *asked, *codecs, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    # Losses 0, 0.25 and 0.25: 1000, 600 and 400 bytes; 0.125 for the last layer alone loses 0.25.
    assert facts["places_at_bound"] == {"raw": 1, "0.125": 0, "0.25": 1, "0.5": 1, "1": 0}
    assert run(monkeypatch, *asked, "--codec", "cuszp", "--codec", "rtn-int4") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "codec rtn-int4 is not in the calibration; calibrate it" in error


def test_a_proof_leaves_a_page_to_decide_by(
    given: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    def prove(*given: Any) -> Proof:
        asked.append(given[4].repeats)
        return usual()

    monkeypatch.setattr("offsim.study.optimize.proof.prove", prove)
    monkeypatch.setattr("offsim.study.study.embedded", lambda: None)
    out = tmp_path / "proof"
    out.mkdir()
    files = ("--sensitivity", str(tmp_path / "abs"), "--prove", str(out), "--repeats", "4")
    assert run(monkeypatch, *given, "--budget", "kl<=3", *files) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert asked == [4]
    assert "TPOT is 6.00 ms, against 12.00 ms without compression: 50.0 % less." in shown
    assert {path.name for path in out.iterdir()} == {
        "around.png",
        "bounds.yaml",
        "bounds.png",
        "frontier.png",
        "proof.csv",
        "proof.json",
        "report.html",
    }
    assert run(monkeypatch, "report", str(out)) == 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--budget", "kl<0.1"), "not of the form kl<=0.01 or ica_drop<=1%"),
        (("--budget", "kl<=0.01"), "the tightest bounds of the ladder lose 0.328 nats"),
        (("--codec", "sz3"), "codec sz3 is not in it; calibrate it first"),
        (("--codec", "nobody"), "no codec is called 'nobody'"),
        (("--codec", "raw"), "codec raw takes no bound; name one that does first"),
        (("--sensitivity", "sigma"), "bounds in sigma, which are other numbers for each expert"),
        (("--sensitivity", "nowhere"), "nowhere"),
        (("--repeats", "3"), "give --prove DIR too"),
        (("--prove", "proof"), "what can be run and asked is"),
    ],
)
def test_bad_input_is_one_sentence(
    given: tuple[str, ...],
    changed: tuple[str, str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"--sensitivity": "abs", "--budget": "kl<=3", **dict([changed])}
    assert run(monkeypatch, *given, *(part for pair in asked.items() for part in pair)) == 2
    error = capsys.readouterr().err
    assert says in " ".join(error.split())
    assert "Traceback" not in error
