"""`offsim study paper`, and that it leaves `offsim study` as it is."""

import json
import re
import time
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from offsim.report import paper as reports
from offsim.study.paper import plan as plans
from offsim.study.paper.plan import Plan
from offsim.testbed import load as testbed
from tests.cli.test_cli import run

TINY = Plan(mixed=1, chains=1, seeds=2, sequences=2, length=16, requests=2, tokens=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_model: PreTrainedModel) -> None:
    monkeypatch.setattr(plans, "QUICK", TINY)
    monkeypatch.setattr(testbed, "load", lambda: tiny_model)


@pytest.mark.usefixtures("tiny")
def test_a_quick_study_prints_its_tables_and_writes_a_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ("study", "paper", "--quick", "--part", "5", "--out", str(tmp_path / "p"))
    assert run(monkeypatch, *asked) == 0
    shown = capsys.readouterr().out
    assert "Table 5: ICA" in shown
    assert "74%" in shown  # the paper's
    assert "MEASURED on 11 items" in shown
    assert "says nothing of a large one" in shown
    assert (tmp_path / "p" / "report.html").is_file()
    assert re.search(r"9 runs in \d+ s of wall time from the start to the page", shown)


@pytest.mark.usefixtures("tiny")
def test_a_call_is_timed_from_its_start_to_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = ("study", "paper", "--quick", "--part", "5", "--out", str(tmp_path), "--json")
    inner = reports.write_paper_report

    def slow(out: Path) -> Path:
        time.sleep(1.0)
        return inner(out)

    monkeypatch.setattr(reports, "write_paper_report", slow)
    started = time.perf_counter()
    assert run(monkeypatch, *asked) == 0
    outside = time.perf_counter() - started
    (call,) = json.loads(capsys.readouterr().out)["calls"]
    assert (call["parts"], call["runs"]) == (["5"], 9)  # 4 cells of 2 seeds, and one without
    assert 1.0 < call["seconds"] <= outside
    assert call["seconds"] == pytest.approx(outside, abs=0.5)
    assert json.loads((tmp_path / "paper.json").read_text())["calls"] == [call]
    monkeypatch.setattr(reports, "write_paper_report", inner)
    assert run(monkeypatch, *asked) == 0
    first, again = json.loads(capsys.readouterr().out)["calls"]
    assert first == call
    assert again["runs"] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(r"9 runs of the parts 5 in \d+\.\d minutes \(MEASURED\)", page)


def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "study", "paper", "--help") == 0
    assert "Example: offsim study paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("study", "--quick", "paper"), "--quick stands before paper; write it after paper"),
        (("study", "--json", "paper"), "--json stands before paper"),
        (("study", "paper", "--part", "2", "--out", "{}"), "the study has no part '2'"),
        (("study", "paper", "--out", "{}/file"), "cannot be written"),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_wrong_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    (tmp_path / "file").touch()
    assert run(monkeypatch, *(part.format(tmp_path) for part in arguments)) == 2
    message = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(message) == 1, message
    assert says in message[0]
