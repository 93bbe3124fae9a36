"""`offsim report` remakes the page of whatever left the folder."""

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import run
from tests.report.test_paper import study
from tests.report.test_sensitivity import measured


def test_the_page_of_a_paper_study_is_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study(tmp_path, "8")
    assert run(monkeypatch, "report", str(tmp_path)) == 0
    assert "report.html" in capsys.readouterr().out
    assert "Table 8" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_of_a_sensitivity_is_made_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    measured(tmp_path, 0.01, monkeypatch)
    assert run(monkeypatch, "report", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(tmp_path / "report.html")}
    assert "place by place" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_of_nothing_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "report", str(tmp_path)) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
