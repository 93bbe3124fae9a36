import json
from pathlib import Path

import pytest

from offsim.trace import save_trace
from tests.builders import TOY

from .test_cli import run


@pytest.fixture
def toy(tmp_path: Path) -> str:
    save_trace(TOY, tmp_path / "toy.safetensors")
    return str(tmp_path / "toy.safetensors")


def test_a_row_for_each_number_of_slots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: str, tmp_path: Path
) -> None:
    picture = tmp_path / "curve.png"
    asked = ("--cache", "lru", "--cache", "belady", "--figure", str(picture), "--json")
    assert run(monkeypatch, "trace", "curve", toy, *asked) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["label"] == "SIMULATED"
    points = shown["points"]
    assert [point["slots"] for point in points] == [1, 2, 3, 4]
    assert [point["working_set_ratio"] for point in points] == pytest.approx([2, 1, 2 / 3, 0.5])
    assert points[1]["lru"] == 0.75
    assert all(point["lru"] <= point["belady"] for point in points[1:])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_each_cache_is_a_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toy: str
) -> None:
    asked = ("--cache", "pinned", "--cache", "random", "--profile", toy, "--scope", "global")
    assert run(monkeypatch, "trace", "curve", toy, *asked) == 0
    shown = capsys.readouterr().out
    assert "Hit rate in decoding, toy.safetensors [SIMULATED]" in shown
    assert "pinned" in shown
    assert "belady" not in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--cache arc", "no cache is called 'arc'"),
        ("--cache pinned", "pinned needs a profile"),
        ("--figure {toy}/c.png", "cannot be written"),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    toy: str,
    arguments: str,
    says: str,
) -> None:
    assert run(monkeypatch, "trace", "curve", toy, *arguments.format(toy=toy).split()) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len(shown.err.strip().splitlines()) == 1
