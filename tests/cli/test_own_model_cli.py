"""Commands that take a checkpoint of the user."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from offsim.calibration.schema import Calibration
from offsim.codec.bounds import Bound
from offsim.files import read_yaml, write_yaml
from offsim.model.generate import greedy_tokens
from offsim.model.hook import Resident, handled
from offsim.model.sampling import Sampling
from offsim.policy.bounds import Bounds
from offsim.runtime.store import ExpertStore
from offsim.study.calibrate import Effort
from offsim.study.compress import compress
from offsim.trace import load_trace
from offsim.trace.format import TraceInfo
from offsim.trace.recorder import record
from tests.builders import calibration
from tests.families import family

from .test_cli import run

STORED = "cuszp", Bounds(default=Bound(0.25, "sigma"))
IDS = [[5, 6, 7], [90, 17]]
TOKENS = 3


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return family("gpt-oss")


@pytest.fixture(scope="module")
def files(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A checkpoint whose words are the ids of its tokens, and prompts as ids and as texts."""
    folder = tmp_path_factory.mktemp("own") / "tiny"
    model.save_pretrained(folder)
    vocabulary = {str(token): token for token in range(128)}
    tokenizer = Tokenizer(WordLevel(vocabulary | {"a": 128}, unk_token="0"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    jsonl, text = folder.parent / "p.jsonl", folder.parent / "p.txt"
    jsonl.write_text("\n".join(json.dumps({"ids": ids}) for ids in IDS))
    text.write_text("\n".join(" ".join(map(str, ids)) for ids in IDS))
    other = Path(shutil.copytree(folder, folder.parent / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rope_theta": 7.0}))
    experts = folder.parent / "experts"
    compress(folder, experts, *STORED, 1)
    figures = folder.parent / "calibration.yaml"
    write_yaml(figures, calibration())
    made = {"model": folder, "jsonl": jsonl, "txt": text, "other": other, "experts": experts}
    made["calibration"] = figures
    return {name: str(path) for name, path in made.items()}


def answers(model: PreTrainedModel) -> list[str]:
    with handled(model, Resident(model)):
        return [" ".join(map(str, greedy_tokens(model, ids, TOKENS))) for ids in IDS]


def given(files: dict[str, str], prompts: str) -> list[str]:
    return ["--model", files["model"], "--prompts", files[prompts], "--tokens", str(TOKENS)]


@pytest.mark.parametrize("prompts", ["jsonl", "txt"])
def test_run_answers_the_prompts_of_a_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: PreTrainedModel,
    files: dict[str, str],
    prompts: str,
) -> None:
    asked = given(files, prompts)
    assert run(monkeypatch, "run", *asked, "--link", "plain", "--slots", "3", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["answers"] == answers(model)
    assert facts["label"] == "MEASURED"
    assert facts["ratio_f32"] == 1.0
    assert run(monkeypatch, "run", *asked, "--link", "plain", "--requests", "1") == 0
    shown = capsys.readouterr().out
    assert answers(model)[0] in shown
    assert "prompt 2" not in shown


def test_record_writes_the_trace_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: PreTrainedModel,
    files: dict[str, str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "new" / "t.safetensors"
    asked = [*given(files, "txt"), "--lookahead", "2", "--out", str(out)]
    assert run(monkeypatch, "trace", "record", *asked) == 0
    assert f"{out}: 9 tokens, 3 layers, top-3" in " ".join(capsys.readouterr().out.split())
    trace = load_trace(out)
    expected, _ = record(model, IDS, TOKENS, TraceInfo(**trace.info.model_dump()), 2)
    for name, array in expected.arrays().items():
        assert (trace.arrays()[name] == array).all(), name
    assert trace.info.model == "tiny"
    assert trace.info.layer_bytes == (3 * 32 * 16 * 4,) * 3
    assert "2 prompts" in trace.info.source


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run --model {model}", "--model and --prompts go together"),
        ("run --prompts {txt}", "--model and --prompts go together"),
        ("run --model none --prompts {txt}", "none"),
        ("run --model {model} --prompts none.txt", "none.txt: cannot be read"),
        ("run --model {model} --prompts {txt} --tokens 126", "has room for 2 beside"),
        ("trace record --out t --model {model}", "--model and --prompts go together"),
        (
            "trace record --out t --model {model} --prompts {txt} --codec cuszp --bound 0.01",
            "--codec and --bound are of the embedded model",
        ),
        ("run --model {model} --prompts {txt} --seed 5", "--prompts has those of --model; leave"),
        (
            "trace record --out t --model {model} --prompts {txt} --seed 5",
            "--seed draws prompts for the embedded model",
        ),
        ("trace record --out t --stop", "--stop is of a checkpoint; give --model"),
        ("trace record --out t --sample 0.8", "--sample is of a checkpoint; give --model"),
        ("run --model {model} --prompts {txt} --top-p 0.9", "--top-p is of tokens that are drawn"),
        ("run --model {model} --prompts {txt} --sample 0", "a temperature is a number above 0"),
        ("run --model {model} --prompts {txt} --sample 1 --top-p 2", "top-p is a share above 0"),
        ("run --model {model} --prompts {txt} --sample 1 --seed -1", "a seed of draws is 0 or"),
        ("calibrate --out o --model {model}", "--model and --prompts go together"),
        ("calibrate --out o --model {model} --prompts {txt}", "say with --codec which to measure"),
        ("calibrate --out o --experts 3", "--experts is of a checkpoint; give --model"),
        (
            "calibrate --out o --model {model} --prompts {txt} --codec raw --notes n",
            "--notes keeps the sizes that --experts measures",
        ),
        (
            "calibrate --out o --model {model} --prompts {txt} --codec raw --experts 0",
            "--experts is a number from 1 on or `all`, not 0",
        ),
        ("calibrate --out o --model {model} --prompts {txt} --codec cuszp:x", "'x' is not a numb"),
        (
            "calibrate --out o --model {model} --prompts {txt} --from-run {txt}",
            "--model is of no use with --from-run",
        ),
        ("check --calibration {calibration} --prompts {txt}", "--model and --prompts go together"),
        (
            "check --calibration {calibration} --model {model} --prompts {txt}",
            "the calibration is of toy; this check runs tiny",
        ),
        (
            "trace record --out t --model {model} --prompts {txt} --stop",
            "neither generation_config.json nor config.json names a token that ends a text",
        ),
        ("run --experts {experts}", "--experts has those of a checkpoint; give --model"),
        ("run --model {model} --prompts {txt} --experts none", "none/index.json: cannot be read"),
        ("run --model {model} --prompts {txt} --experts {model}", "no index.json, so it is not a"),
        ("run --model {other} --prompts {txt} --experts {experts}", "not the checkpoint that"),
        (
            "run --model {model} --prompts {txt} --experts {experts} --codec sz3 --bound 0.01",
            "--experts says codec and bounds; leave --codec",
        ),
    ],
)
def test_what_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    tmp_path: Path,
    command: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *command.format_map(files).split()) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *asked: str
) -> dict[str, Any]:
    """What a run tells machines."""
    assert run(monkeypatch, "run", *asked, "--link", "plain", "--slots", "3", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_from_a_folder_is_one_that_compresses_itself(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    tmp_path: Path,
) -> None:
    write_yaml(tmp_path / "bounds.yaml", STORED[1])
    asked = given(files, "txt")
    own = ("--codec", STORED[0], "--bounds", str(tmp_path / "bounds.yaml"))
    expected = ran(monkeypatch, capsys, *asked, *own)

    def compresses(*_: object) -> None:
        raise AssertionError("it is compressed again")

    monkeypatch.setattr(ExpertStore, "holding", compresses)
    found = ran(monkeypatch, capsys, *asked, "--experts", files["experts"])
    same = ("answers", "ratio_f32", "hit_rate", "loads", "loaded_bytes", "lookups")
    assert all(found.get(name) == expected.get(name) for name in same)
    assert found["ratio_f32"] > 1.5
    low = ("--low", "cuszp:0.0625", "--low-below", "0.5")
    with pytest.raises(AssertionError, match="again"):
        ran(monkeypatch, capsys, *asked, "--experts", files["experts"], *low)


def test_an_answer_stops_where_the_checkpoint_says(
    monkeypatch: pytest.MonkeyPatch,
    model: PreTrainedModel,
    files: dict[str, str],
    tmp_path: Path,
) -> None:
    first = [int(said.split()[0]) for said in answers(model)]
    folder = Path(shutil.copytree(files["model"], tmp_path / "ending"))
    ends = {"eos_token_id": [first[0], 127]}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    out = tmp_path / "t.safetensors"
    asked = ["--model", str(folder), *given(files, "txt")[2:], "--out", str(out)]
    assert run(monkeypatch, "trace", "record", *asked) == 0
    whole = load_trace(out)
    assert run(monkeypatch, "trace", "record", *asked, "--stop") == 0
    stopped = load_trace(out)
    assert (whole.request == 0).sum() == len(IDS[0]) + TOKENS - 1
    assert (stopped.request == 0).sum() == len(IDS[0])
    for request in range(len(IDS)):
        rows = (stopped.request == request).sum()
        part = whole.experts[whole.request == request][:rows]
        assert (stopped.experts[stopped.request == request] == part).all()


def test_a_run_draws_the_tokens_of_the_trace(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: PreTrainedModel,
    files: dict[str, str],
    tmp_path: Path,
) -> None:
    drawn = ["--sample", "1.5", "--top-p", "0.9", "--seed", "3"]
    out = tmp_path / "t.safetensors"
    asked = given(files, "txt")
    assert run(monkeypatch, "trace", "record", *asked, *drawn, "--out", str(out)) == 0
    capsys.readouterr()
    trace = load_trace(out)
    assert trace.info.source.endswith("tokens drawn at temperature 1.5, top-p 0.9, seed 3")
    expected, written = record(model, IDS, TOKENS, trace.info, sampling=Sampling(1.5, 0.9, 3))
    assert (trace.experts == expected.experts).all()
    found = ran(monkeypatch, capsys, *asked, *drawn)
    assert found["answers"] == [" ".join(map(str, tokens)) for tokens in written]
    assert found["answers"] != answers(model)


def test_a_calibration_is_measured_and_said_in_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    tmp_path: Path,
) -> None:
    effort = Effort(rounds=1, requests=1, tokens=3, repeats=1)
    monkeypatch.setattr("offsim.study.calibrate.QUICK", effort)
    out = tmp_path / "machine.yaml"
    asked = ["--model", files["model"], "--prompts", files["txt"], "--codec", "cuszp:0.015625"]
    asked = ["calibrate", *asked, "--quick", "--out", str(out)]
    assert run(monkeypatch, *asked, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"]["name"] == "tiny"
    assert facts["disk"]["bytes_per_s"] > 0
    assert facts["compute"]["host_expert"] == []  # gpt-oss has biases
    assert [codec["label"] for codec in facts["codecs"]] == ["MEASURED"] * 2
    parts = ["--experts", "7", "--notes", str(tmp_path / "notes")]
    assert run(monkeypatch, *asked, *parts) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "sizes but those of raw [ESTIMATED]" in said
    assert "[ESTIMATED from 7 of 24 experts]" in said
    assert "cuszp 0.015625: ratio" in said
    assert "95 % interval" in said
    figures = read_yaml(out, Calibration)
    assert figures.codecs[1].sampled is not None
    assert figures.codecs[1].sampled.experts == 7


def test_slots_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    monkeypatch.setattr("offsim.study.checkpoint.usual_memory", lambda: 200_000)
    assert run(monkeypatch, "run", *given(files, "txt"), "--link", "plain") == 2
    assert "slots take" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, "run", *given(files, "txt")) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--link paced first runs with" in said
    assert "give --link plain or a number of MB/s" in said
