"""`--prefetch`, transfers and engines of `offsim simulate` and `offsim run`."""

import json
import sys
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.cli.policies import size_of
from offsim.errors import InputError
from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import calibration, codec_figures, foreseen, trace_of


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `offsim ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["offsim", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture
def simulate(tmp_path: Path) -> tuple[str, ...]:
    """A command that simulates three steps; an expert of 1000 bytes is 10 s on the link."""
    trace = trace_of([[[0, 1]] * 3, [[1, 2]] * 3, [[2, 3]] * 3])
    save_trace(foreseen(trace, 2), tmp_path / "t.safetensors")
    save_trace(trace, tmp_path / "plain.safetensors")
    write_yaml(tmp_path / "c.yaml", calibration())
    files = ("--trace", str(tmp_path / "t.safetensors"), "--calibration", str(tmp_path / "c.yaml"))
    return ("simulate", *files, "--slots", "3", "--link", "0.0001")


def facts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, float]:
    assert run(monkeypatch, *arguments, "--json") == 0
    shown: dict[str, float] = json.loads(capsys.readouterr().out)
    return shown


@pytest.mark.parametrize("prefetch", ["gate", "last-token", "transition", "oracle", "noisy-oracle"])
def test_simulate_prefetches(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    simulate: tuple[str, ...],
    prefetch: str,
) -> None:
    plain = facts(monkeypatch, capsys, *simulate)
    ahead = facts(monkeypatch, capsys, *simulate, "--prefetch", prefetch, "--distance", "2")
    assert plain["prefetch_bytes"] == plain["late_rate"] == 0
    assert ahead["lookups"] == plain["lookups"]
    if "oracle" in prefetch or prefetch == "gate":
        assert ahead["prefetch_bytes"] > 0
        assert ahead["wasted_bytes"] == 0
        assert ahead["tpot_s"] < plain["tpot_s"]


def test_a_budget_holds_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulate: tuple[str, ...]
) -> None:
    asked = (*simulate, "--prefetch", "oracle", "--prefetch-budget")
    issued = [
        facts(monkeypatch, capsys, *asked, budget)["prefetch_bytes"]
        for budget in ("0", "1KB", "0.5KB", "1MiB")
    ]
    assert issued[0] == issued[2] == 0
    assert 0 < issued[1] < issued[3]


def test_a_profile_is_learnt_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulate: tuple[str, ...]
) -> None:
    asked = (*simulate, "--prefetch", "popularity")
    assert facts(monkeypatch, capsys, *asked, "--profile", simulate[2])["prefetch_bytes"] > 0
    assert run(monkeypatch, *asked) == 2
    assert "popularity needs a profile" in capsys.readouterr().err


def test_what_was_prefetched_is_shown_only_where_something_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulate: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *simulate) == 0
    assert "prefetch" not in capsys.readouterr().out
    moves = ("--chunk", "500", "--pipelined", "--channels", "2")
    assert run(monkeypatch, *simulate, "--prefetch", "gate", *moves) == 0
    shown = capsys.readouterr().out
    assert "raw, lru 3, gate 1 ahead, chunks of 500 pipelined, 2 channels [SIMULATED]" in shown
    assert "prefetched" in shown
    assert "for nothing" in shown
    assert "prefetch came late" in shown


def test_both_engines_tell_the_same_and_noise_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulate: tuple[str, ...]
) -> None:
    asked = (*simulate, "--prefetch", "gate", "--chunk", "300", "--channels", "2")
    fast = facts(monkeypatch, capsys, *asked)
    assert facts(monkeypatch, capsys, *asked, "--engine", "simpy") == fast
    assert facts(monkeypatch, capsys, *asked, "--channels", "1")["ttft_s"] > fast["ttft_s"]
    drawn = [facts(monkeypatch, capsys, *asked, "--noise", seed) for seed in ("1", "1")]
    assert drawn[0] == drawn[1]
    assert run(monkeypatch, *asked, "--engine", "slow") == 2


CHECK = "check --calibration {here}/c.yaml --out {here}/out"
PLAIN = "simulate --trace {here}/plain.safetensors --calibration {here}/c.yaml"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"{PLAIN} --prefetch best", "no prefetcher is called 'best'; there are none, gate"),
        (f"{PLAIN} --prefetch gate", "record one with --lookahead 1"),
        (f"{PLAIN} --distance 2", "--distance and --prefetch-budget are of a prefetcher"),
        (f"{PLAIN} --prefetch-budget 1KB", "give --prefetch"),
        (f"{PLAIN} --prefetch gate --recall 0.5", "are of noisy-oracle, not of gate"),
        (f"{PLAIN} --prefetch noisy-oracle --precision 0", "policy: precision"),
        (f"{PLAIN} --prefetch noisy-oracle --recall 1.5", "policy: recall"),
        (f"{PLAIN} --prefetch oracle --prefetch-budget 3Q", "--prefetch-budget is such as 64MiB"),
        (f"{PLAIN} --chunk 0", "policy: chunk_bytes"),
        (f"{PLAIN} --chunk much", "--chunk is such as 64MiB (KB, MB, GB, KiB, MiB, GiB) or bytes"),
        (f"{PLAIN} --channels 65", "policy: channels"),
        (f"{PLAIN} --pipelined", "--pipelined decodes chunk by chunk; give --chunk"),
        (f"{PLAIN} --decoders 2", "--decoders are of the host, and raw is decoded on the device"),
        ("run --prefetch oracle", "oracle looks into the future: it needs a trace, not a live run"),
        ("run --prefetch popularity", "popularity needs a profile"),
        (f"{CHECK} --prefetch best", "no prefetcher is called 'best'"),
        (f"{CHECK} --prefetch-budget 1KB", "give --prefetch"),
        (f"{CHECK} --prefetch oracle", "oracle looks into the future: it needs a trace"),
        (f"{CHECK} --prefetch popularity", "popularity needs a profile"),
        (f"{CHECK} --prefetch popularity --profile {{here}}/plain.safetensors", "is of toy"),
        ("run --chunk 1KB --pipelined", "pipelined transfers can only be simulated"),
    ],
)
def test_wrong_values_are_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    simulate: tuple[str, ...],
    command: str,
    says: str,
) -> None:
    here = str(Path(simulate[2]).parent)
    assert run(monkeypatch, *[part.format(here=here) for part in command.split()]) == 2
    shown = capsys.readouterr()
    (message,) = [
        line for line in shown.err.splitlines() if line.strip() and "link paced" not in line
    ]
    assert message.startswith("offsim: ")
    assert says in message
    assert shown.out == ""


def test_sizes_have_units() -> None:
    sizes = [size_of(text, "--chunk") for text in ("7", "7B", "1.5KB", "2 MiB", "1GB")]
    assert sizes == [7, 7, 1500, 2 << 20, 10**9]
    with pytest.raises(InputError, match="--chunk is such as 64MiB"):
        size_of("-1", "--chunk")


def test_info_shows_how_far_gates_were_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulate: tuple[str, ...]
) -> None:
    assert facts(monkeypatch, capsys, "trace", "info", simulate[2])["lookahead"] == 2
    plain = str(Path(simulate[2]).with_name("plain.safetensors"))
    assert run(monkeypatch, "trace", "info", plain) == 0
    assert "lookahead" not in capsys.readouterr().out


def test_a_real_run_prefetches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    what = ("--requests", "1", "--tokens", "3", "--link", "1000", "--slots", "6")
    asked = ("--prefetch", "gate", "--distance", "2", "--prefetch-budget", "1MiB")
    shown = facts(monkeypatch, capsys, "run", *what, *asked, "--chunk", "64KiB", "--channels", "2")
    assert shown["label"] == "MEASURED"
    assert 0 < shown["prefetch_bytes"] <= 3 << 20
    assert shown["wasted_bytes"] <= shown["prefetch_bytes"]


@pytest.mark.parametrize(
    ("command", "how", "classes"),
    [
        ("simulate", "", False),
        ("simulate", "--prefetch transition", False),
        ("simulate", "--prefetch noisy-oracle", True),
        ("simulate", "--cache s3-fifo", True),
        ("simulate", "--noise 1", True),
        ("explain", "--slots 2", False),
        ("breakeven", "--keep compressed --codec cuszp:0.5", True),
        ("serve", "", True),
    ],
)
def test_it_is_said_where_the_classes_decide_a_long_trace(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    simulate: tuple[str, ...],
    command: str,
    how: str,
    classes: bool,
) -> None:
    write_yaml(Path(simulate[4]), calibration(codec_figures(), codec_figures("cuszp", 0.5)))
    note = "offsim: note: the policy's classes decide here, not compiled code"
    asked = (command, *simulate[1:], *how.split(), "--json")
    for many, said in ((1000, False), (9, classes)):
        monkeypatch.setattr("offsim.cli.display.MANY_LOOKUPS", many)
        assert run(monkeypatch, *asked) == 0
        assert (note in capsys.readouterr().err) == said
