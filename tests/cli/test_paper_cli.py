"""`offsim study paper`, and that it leaves `offsim study` as it is."""

from pathlib import Path

import pytest
from transformers import PreTrainedModel

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
