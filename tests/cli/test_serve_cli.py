import json
import sys
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import calibration, codec_figures
from tests.simulate.traffic import requests_of


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `offsim ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["offsim", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    """A command that serves three requests of 3, 3 and 2 output tokens."""
    save_trace(requests_of([(3, 2), (4, 2), (0, 2)]), tmp_path / "t.safetensors")
    shape = {"layers": 2, "experts": 6}
    write_yaml(tmp_path / "c.yaml", calibration(codec_figures(**shape), **shape))
    files = ("--trace", str(tmp_path / "t.safetensors"), "--calibration", str(tmp_path / "c.yaml"))
    return ("serve", *files, "--slots", "6", "--link", "0.001")


def served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, float]:
    assert run(monkeypatch, *arguments, "--json") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    metrics: dict[str, float] = json.loads(shown.out)
    return metrics


def test_json_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    metrics = served(monkeypatch, capsys, *command)
    assert (metrics["label"], metrics["requests"]) == ("SIMULATED", 3)
    assert metrics["output_tokens"] == 8
    assert (metrics["steps"], metrics["largest_batch"]) == (3, 3)
    assert metrics["mean_batch"] == pytest.approx(8 / 3)
    assert metrics["ttft_p50_s"] == metrics["ttft_p95_s"] == metrics["ttft_p99_s"]
    assert metrics == served(monkeypatch, capsys, *command, "--engine", "simpy")


def test_batches_and_chunks_are_limited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    alone = served(monkeypatch, capsys, *command, "--max-batch", "1")
    assert (alone["steps"], alone["largest_batch"], alone["mean_batch"]) == (8, 1, 1)
    chunked = served(monkeypatch, capsys, *command, "--max-batch", "1", "--prompt-tokens", "2")
    assert chunked["steps"] == 8 + 1 + 1


def test_the_policy_prefetches_and_times_may_be_noisy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    ahead = served(monkeypatch, capsys, *command, "--prefetch", "last-token", "--slots", "3")
    assert ahead["prefetch_bytes"] > 0
    noisy = served(monkeypatch, capsys, *command, "--noise", "1")
    assert noisy["link_bytes"] == served(monkeypatch, capsys, *command)["link_bytes"]


def test_arrivals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text("request,seconds\n0,0\n10,28800\n20,57600\n")
    file = served(monkeypatch, capsys, *command, "--arrivals", str(tmp_path / "a.csv"))
    assert file["largest_batch"] == 1
    assert file == served(monkeypatch, capsys, *command, "--arrivals", "even:24h")
    drawn = [
        served(monkeypatch, capsys, *command, "--arrivals", "poisson:0.01", *more)
        for more in ((), ("--arrivals-seed", "0"), ("--arrivals-seed", "1"))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_people_see_percentiles_and_batches(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    tmp_path: Path,
) -> None:
    timeline = tmp_path / "t.json"
    files = ("--timeline", str(timeline), "--timeline-figure", str(tmp_path / "t.png"))
    assert run(monkeypatch, *command, *files, "--timeline-steps", "2") == 0
    shown = capsys.readouterr().out
    for name in ("TTFT p50 / p95 / p99", "ITL p50 / p95 / p99", "throughput", "hit rate"):
        assert name in shown
    assert "mean batch" in shown
    assert "largest batch" in shown
    events = json.loads(timeline.read_text(encoding="utf-8"))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "compute"]
    steps = [name for name in names if not name.startswith("wait")]
    assert steps == ["prefill, request 20", "decode, request 0"]
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--cache belady", "cache belady looks into the future"),
        ("--prefetch oracle", "prefetcher oracle looks into the future"),
        ("--arrivals never", "arrivals are at-once, poisson:RATE"),
        ("--arrivals poisson:-1", "'-1' is not a number above zero"),
        ("--arrivals {csv}", "line 2: there is no request 5 in the trace"),
        ("--arrivals poisson:1e-9", "a request arrives at"),
        ("--codec sz3 --bound 1", "sz3 at bound 1 is not in the calibration"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    tmp_path: Path,
    more: str,
    says: str,
) -> None:
    (tmp_path / "a.csv").write_text("request,seconds\n5,0\n")
    asked = more.format(csv=tmp_path / "a.csv").split()
    assert run(monkeypatch, *command, *asked) == 2
    shown = capsys.readouterr()
    (message,) = [line for line in shown.err.splitlines() if line.strip()]
    assert message.startswith("offsim: ")
    assert says in message
    assert shown.out == ""


@pytest.mark.parametrize("more", ["--max-batch 0", "--prompt-tokens 0", "--engine slow"])
def test_wrong_usage_ends_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    assert run(monkeypatch, "serve", *more.split()) == 2
    assert "Traceback" not in capsys.readouterr().err
