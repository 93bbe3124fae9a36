"""`offsim doctor`: a row for everything, whatever is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import offsim.cli.probes.registry as module
from offsim.cli.probes.base import Found, Group, Probe, fact, missing, works
from offsim.codec import CODECS
from offsim.codec.cuszp_kernels import kernels

from .test_cli import run

DOCS = Path(__file__).parents[2] / "docs" / "doctor.md"


def test_every_part_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "doctor", "--json") == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["version"] == 1
    rows = {row["what"]: row for row in json.loads(shown)["rows"]}
    assert {row["state"] for row in rows.values()} <= {"works", "missing", "FAILS", "fact"}
    everywhere = ("codecs", "models", "libraries")
    failed = [row for row in rows.values() if row["state"] == "FAILS"]
    assert [row for row in failed if row["group"] in everywhere] == []
    assert kernels().name in rows["cuszp core"]["here"]
    assert {f"codec {name}" for name in CODECS} <= set(rows)
    assert rows["codec cuszp"] == {
        "group": "codecs",
        "what": "codec cuszp",
        "state": "works",
        "here": "largest error 0.002, allowed 0.002",
        "remedy": "",
        "seconds": rows["codec cuszp"]["seconds"],
    }
    names = DOCS.read_text(encoding="utf-8")
    for row in rows.values():
        documented = row["group"] if row["group"] == "extras" else row["what"]
        assert f"`{documented}`" in names or row["what"].startswith("codec "), row["what"]


WITHOUT_PYSZ = """
import sys
sys.modules["pysz"] = None  # as where it is not installed
import offsim.cli.probes.registry as module
cheap = [group for group in module.groups() if group.title in ("machine", "libraries", "codecs")]
module.groups = lambda folder: cheap
sys.argv = ["offsim", "doctor", "--json"]
from offsim.cli import main
main()
"""


def test_without_a_library_the_rest_is_still_seen() -> None:
    command = [sys.executable, "-c", WITHOUT_PYSZ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = {row["what"]: row for row in json.loads(shown.stdout)["rows"]}
    assert (rows["codecs"]["state"], rows["codecs"]["here"]) == ("missing", "no module pysz")
    assert "install offsim again" in rows["codecs"]["remedy"]
    assert rows["torch"]["state"] == "works"
    assert rows["Python"]["state"] == "fact"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every state."""

    def breaks() -> Found:
        raise ZeroDivisionError("by [bold]zero[/bold]")

    first = [Probe("good", works), Probe("known", lambda: fact("42", "nothing"))]
    second = [Probe("gone", lambda: missing("none", "pip install 'x[y]'")), Probe("odd", breaks)]
    groups = (Group("ones", lambda: first), Group("others", lambda: second))
    monkeypatch.setattr(module, "groups", lambda _: groups)


@pytest.mark.usefixtures("few")
def test_the_table_has_groups_remedies_and_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert cells == [
        ["ones", "", ""],
        ["good", "works", ""],
        ["known", "42", "nothing"],
        ["others", "", ""],
        ["gone", "missing: none", "pip install 'x[y]'"],
        ["odd", "FAILS: ZeroDivisionError: by [bold]zero[/bold]", ""],
    ]
    assert lines[-1].startswith("1 works, 1 missing, 1 FAILS, 1 fact; ")


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone", "--need gone: missing: none; pip install 'x[y]'"),
        ("odd", "--need odd: FAILS: ZeroDivisionError"),
        ("known", "--need known: 42; nothing"),
        ("rest", "--need rest: no row is called so; there are good, known, gone, odd"),
    ],
)
def test_a_row_that_is_needed_and_does_not_work_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    assert run(monkeypatch, "doctor", "--need", "good", "--need", name) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(error) == 1
    assert error[0].startswith(f"offsim: {says}")


@pytest.mark.usefixtures("few")
def test_a_row_that_works_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "doctor", "--need", "good") == 0
