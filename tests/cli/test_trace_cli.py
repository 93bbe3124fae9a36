import json
from pathlib import Path

import numpy as np
import pytest

from offsim.trace import load_trace, save_trace
from tests.builders import trace_of

from .test_cli import run

EXPERTS = [[[0, 1], [2, 3]], [[1, 2], [0, 3]], [[2, 3], [0, 1]]]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Arrays and a trace to begin with, and places to write to."""
    np.save(tmp_path / "x.npy", np.array(EXPERTS, np.uint8))
    np.save(tmp_path / "flat.npy", np.arange(3))
    (tmp_path / "text.csv").write_text("hello")
    save_trace(trace_of([[[0, 1]] * 3, [[1, 2]] * 3]), tmp_path / "like.safetensors")
    return {"here": str(tmp_path), "out": str(tmp_path / "new" / "t.safetensors")}


def asked(command: str, files: dict[str, str]) -> list[str]:
    return [part.format_map(files) for part in command.split()]


IMPORT = "trace import {here}/x.npy --format arrays --out {out} --experts 4 --prompt 1 --model m"


def test_import_writes_a_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    assert run(monkeypatch, *asked(IMPORT, files)) == 0
    shown = capsys.readouterr().out
    assert "1 requests, 3 tokens, 2 layers, top-2 of 4" in shown
    assert "imported from x.npy; weights unknown" in shown
    trace = load_trace(Path(files["out"]))
    assert trace.experts.tolist() == EXPERTS
    assert trace.info.model == "m"
    assert trace.phase.tolist() == [0, 1, 1]


def test_import_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    assert run(monkeypatch, *asked(IMPORT + " --json", files)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trace"] == files["out"]
    assert (facts["tokens"], facts["layers"], facts["top_k"], facts["requests"]) == (3, 2, 2, 1)
    assert facts["experts_per_layer"] == 4


def test_cut_writes_a_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    command = "trace cut {here}/like.safetensors --layers 1 --tokens 1 --out {out}"
    assert run(monkeypatch, *asked(command, files)) == 0
    assert "1 requests, 1 tokens, 1 layers, top-2" in capsys.readouterr().out
    assert load_trace(Path(files["out"])).experts.tolist() == [[[0, 1]]]


def test_cut_refuses_more_layers_than_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    command = "trace cut {here}/like.safetensors --layers 9 --out {out}"
    assert run(monkeypatch, *asked(command, files)) == 2
    assert "the trace has 3 layers, not 9; ask for fewer" in capsys.readouterr().err
    assert not Path(files["out"]).exists()


def test_info_shows_the_bytes_of_an_expert(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = trace_of([[[0, 1]] * 3, [[1, 2]] * 3])
    for sizes, shown in (((7, 7, 7), "layer bytes: 7"), ((7, 8, 7), "layer bytes: (7, 8, 7)")):
        trace.info = trace.info.model_copy(update={"layer_bytes": sizes})
        save_trace(trace, tmp_path / "t")
        assert run(monkeypatch, "trace", "info", str(tmp_path / "t")) == 0
        assert shown in capsys.readouterr().out.splitlines()
    assert run(monkeypatch, "trace", "info", str(tmp_path / "t"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["layer_bytes"] == [7, 8, 7]


def test_info_says_what_requests_ask_for_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    info = asked("trace info {here}/like.safetensors --json --together", files)
    assert run(monkeypatch, *info, "1") == 0
    assert json.loads(capsys.readouterr().out)["distinct_together"] == 2.0
    assert run(monkeypatch, *info, "2") == 2
    assert "the trace has 1 requests, not 2" in capsys.readouterr().err


SYNTH = "trace synth --like {here}/like.safetensors --out {out}"


def test_synth_is_as_long_as_the_original(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    assert run(monkeypatch, *asked(SYNTH, files)) == 0
    assert "1 requests, 2 tokens, 3 layers, top-2 of 4" in capsys.readouterr().out
    assert load_trace(Path(files["out"])).phase.tolist() == [0, 1]


def test_synth_takes_size_shape_and_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    size = " --requests 2 --prompt 3 --tokens 4 --layers 5 --experts 16 --top-k 3 --json"
    found = []
    for seed in (1, 1, 2):
        assert run(monkeypatch, *asked(f"{SYNTH}{size} --seed {seed}", files)) == 0
        facts = json.loads(capsys.readouterr().out)
        found.append(load_trace(Path(files["out"])).experts)
    sizes = [facts[name] for name in ("tokens", "layers", "top_k", "requests")]
    assert sizes == [14, 5, 3, 2]
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("trace import {here}/x.npy --format zip --out {out}", "no trace format is called 'zip'"),
        ("trace import {here}/none --format vllm --out {out}", "none: no such file"),
        ("trace import {here}/none --format bigmoe --out {out}", "none: cannot be read"),
        ("trace import {here}/x.npy --format arrays --out {out}", "give --prompt"),
        ("trace import {here}/x.npy --format arrays --out {out} --prompt 1", "give --experts"),
        ("trace import {here}/flat.npy --format arrays --out {out}", "flat.npy: the shape is (3,)"),
        ("trace import {here}/text.csv --format bigmoe --out {out}", "text.csv:1: the first line"),
        ("trace import {here}/text.csv --format cachelab --out {out}", "text.csv:1: not JSON"),
        (IMPORT.replace("{out}", "{here}/x.npy/t"), "cannot be written"),
        (SYNTH.replace("like.", "none."), "none.safetensors: no such trace file"),
        (SYNTH.replace("{out}", "{here}/x.npy/t"), "cannot be written"),
        (f"{SYNTH} --top-k 5", "takes 5 of 4 experts"),
        (f"{SYNTH} --prompt 0 --tokens 0", "has nothing in it"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    command: str,
    says: str,
) -> None:
    assert run(monkeypatch, *asked(command, files)) == 2
    shown = capsys.readouterr()
    message = [line for line in shown.err.splitlines() if line.strip()]
    assert len(message) == 1, shown.err
    assert message[0].startswith("offsim: ")
    assert says in message[0]
    assert shown.out == ""
    assert not Path(files["out"]).exists()


@pytest.mark.parametrize("command", ["import", "synth"])
def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, "trace", command, "--help") == 0
    assert f"Example: offsim trace {command}" in capsys.readouterr().out


def test_record_asks_the_gates_ahead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    command = "trace record --out {out} --requests 1 --tokens 2"
    found = []
    for option in ("", " --lookahead 2"):
        assert run(monkeypatch, *asked(command + option, files)) == 0
        assert "9 layers, top-2" in capsys.readouterr().out
        found.append(load_trace(Path(files["out"])))
    plain, ahead = found
    np.testing.assert_array_equal(plain.experts, ahead.experts)
    assert plain.lookahead is None
    assert ahead.lookahead is not None
    assert ahead.lookahead.shape == (ahead.tokens, 9, 2, 2)


def test_a_negative_lookahead_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    assert run(monkeypatch, *asked("trace record --out {out} --lookahead -1", files)) == 2
    assert "--lookahead" in capsys.readouterr().err
