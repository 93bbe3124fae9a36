import json
import sys
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import calibration, trace_of


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `offsim ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["offsim", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture
def simulated(tmp_path: Path) -> tuple[str, ...]:
    """A command that simulates three steps."""
    save_trace(trace_of([[[0, 1]] * 3, [[1, 2]] * 3, [[2, 3]] * 3]), tmp_path / "t.safetensors")
    write_yaml(tmp_path / "c.yaml", calibration())
    files = ("--trace", str(tmp_path / "t.safetensors"), "--calibration", str(tmp_path / "c.yaml"))
    return ("simulate", *files, "--slots", "2", "--link", "0.001")


def steps_of(path: Path) -> list[str]:
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "compute"]
    return [name for name in names if not name.startswith("wait")]


def test_simulate_writes_both(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    simulated: tuple[str, ...],
    tmp_path: Path,
) -> None:
    timeline, figure = tmp_path / "new" / "t.json", tmp_path / "other" / "t.png"
    files = ("--timeline", str(timeline), "--timeline-figure", str(figure))
    assert run(monkeypatch, *simulated, *files, "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["label"] == "SIMULATED"
    assert [line.split(":")[0] for line in shown.err.splitlines()] == [str(timeline), str(figure)]
    assert len(steps_of(timeline)) == 3
    about = json.loads(timeline.read_text(encoding="utf-8"))["otherData"]
    assert about.pop("offsim")
    assert about == {
        "label": "SIMULATED",
        "link": "0.001 MB/s",
        "model": "toy",
        "policy": "raw, lru 2",
    }
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in timeline.parent.iterdir()] == ["t.json"]


def test_only_the_first_steps_are_written(
    monkeypatch: pytest.MonkeyPatch, simulated: tuple[str, ...], tmp_path: Path
) -> None:
    timeline = tmp_path / "t.json"
    files = ("--timeline", str(timeline), "--timeline-steps", "2")
    assert run(monkeypatch, *simulated, *files) == 0
    assert steps_of(timeline) == ["prefill, request 0", "decode, request 0"]


def test_without_the_options_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    simulated: tuple[str, ...],
    tmp_path: Path,
) -> None:
    before = sorted(tmp_path.iterdir())
    assert run(monkeypatch, *simulated) == 0
    assert sorted(tmp_path.iterdir()) == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["simulate --trace none --calibration none", "run"])
@pytest.mark.parametrize(
    ("files", "says"),
    [
        ("--timeline {file}/t.json", "cannot be written"),
        ("--timeline-figure {file}/t.png", "cannot be written"),
        ("--timeline {here}", "it is a folder"),
        ("--timeline-figure {here}", "it is a folder"),
        ("--timeline {here}/t --timeline-figure {here}/../{name}/t", "are one file; name two"),
    ],
)
def test_wrong_files_are_one_sentence_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    files: str,
    says: str,
) -> None:
    (tmp_path / "file").touch()
    named = {"file": str(tmp_path / "file"), "here": str(tmp_path), "name": tmp_path.name}
    given = [part.format_map(named) for part in files.split()]
    assert run(monkeypatch, *command.split(), *given) == 2
    shown = capsys.readouterr()
    (message,) = [line for line in shown.err.splitlines() if line.strip()]
    assert message.startswith("offsim: ")
    assert says in message
    assert shown.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["simulate", "run"])
def test_no_steps_are_wrong_usage_and_help_names_the_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command, "--timeline-steps", "0") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert run(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("--timeline ", "--timeline-figure", "--timeline-steps"))


def test_a_real_run_writes_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    timeline, figure = tmp_path / "t.json", tmp_path / "t.png"
    files = ("--timeline", str(timeline), "--timeline-figure", str(figure))
    what = ("--requests", "1", "--tokens", "2", "--link", "1000", "--json")
    assert run(monkeypatch, "run", *what, *files) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["label"] == "MEASURED"
    assert steps_of(timeline) == ["prefill, request 0", "decode, request 0"]
    events = json.loads(timeline.read_text(encoding="utf-8"))["traceEvents"]
    carried = [event["args"]["bytes"] for event in events if event.get("cat") == "link"]
    assert sum(carried) == shown["link_bytes"]
    assert figure.read_bytes().startswith(b"\x89PNG")
