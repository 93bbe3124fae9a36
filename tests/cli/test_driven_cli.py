"""`--trace` of `offsim run`, `calibrate` and `check`."""

import json
from pathlib import Path

import pytest

from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import TOY, calibration, foreseen

from .test_cli import run

SIZES = "--hidden 16 --intermediate 24"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    save_trace(foreseen(TOY, 1), tmp_path / "t.safetensors")
    save_trace(TOY, tmp_path / "plain.safetensors")
    write_yaml(tmp_path / "c.yaml", calibration())
    return tmp_path


def test_a_trace_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = f"run --trace {here}/t.safetensors {SIZES} --layers 2 --tokens 4 --slots 2 --link plain"
    more = "--codec cuszp --bound 0.00390625 --prefetch gate --dtype f32 --json"
    timeline = f"--timeline {here}/line.json"
    assert run(monkeypatch, *f"{asked} {more} {timeline}".split()) == 0
    shown = capsys.readouterr()
    facts = json.loads(shown.out)
    assert (facts["label"], facts["requests"], facts["output_tokens"]) == ("MEASURED", 1, 4)
    assert facts["lookups"] == 16
    assert facts["prefetch_bytes"] > 0
    assert facts["ratio_f32"] > 1
    assert "routing of toy; 2 layers of 4 generated experts 16x24 f32" in shown.err
    about = json.loads((here / "line.json").read_text())["otherData"]
    assert about["model"].startswith("toy, 2 layers of 4 generated experts")


def test_a_paced_link_imitates_by_the_compute_of_the_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = f"run --trace {here}/t.safetensors {SIZES} --tokens 3 --json"
    assert run(monkeypatch, *asked.split()) == 0
    assert "link paced to" in capsys.readouterr().err


RUN = "run --trace {here}/t.safetensors"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run --hidden 16", "--hidden is of experts that a trace drives; give --trace"),
        ("check --calibration {here}/c.yaml --dense 0", "--dense is of experts that a trace"),
        (RUN, "--trace drives generated experts; say how large"),
        (f"{RUN} --hidden 16", "say how large: --hidden and --intermediate"),
        (f"run --trace {{here}}/none {SIZES}", "no such trace file"),
        (f"run --trace {{here}}/c.yaml {SIZES}", "c.yaml: not a whole safetensors file"),
        (f"{RUN} {SIZES} --layers 4", "the trace has 3 layers, not 4"),
        (f"{RUN} {SIZES} --dtype int8", "experts are stored as bf16, fp16, f32, not int8"),
        (f"{RUN} {SIZES} --sigma 0", "sigma of generated weights is a positive number"),
        (f"{RUN} {SIZES} --memory much", "--memory is such as 64MiB"),
        (f"{RUN} {SIZES} --memory 1KiB", "more than the 1.02 KB that they may"),
        (f"{RUN} {SIZES} --prefetch gate --distance 2", "the gates choose 1 ahead"),
        (f"{RUN} {SIZES} --prefetch oracle", "oracle looks into the future"),
        (f"{RUN} {SIZES} --layers 1", "from one to the next: give 2"),
        (
            f"calibrate --out {{here}}/o.yaml --trace {{here}}/t.safetensors {SIZES}",
            "say with --codec which to measure",
        ),
        (
            "check --calibration {here}/c.yaml --out {here}/o --trace {here}/plain.safetensors "
            f"{SIZES} --prefetch gate",
            "the gates choose 0 ahead; record one with --lookahead 1",
        ),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    here: Path,
    command: str,
    says: str,
) -> None:
    assert run(monkeypatch, *[part.format(here=here) for part in command.split()]) == 2
    shown = capsys.readouterr()
    message = [line for line in shown.err.splitlines() if line.strip()]
    assert len(message) == 1, shown.err
    assert message[0].startswith("offsim: ")
    assert says in message[0]
    assert shown.out == ""


def test_a_check_of_other_experts_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    asked = f"check --calibration {here}/c.yaml --out {here}/o --trace {here}/t.safetensors {SIZES}"
    assert run(monkeypatch, *asked.split()) == 2
    assert "the calibration is of toy; this check runs toy, 3 layers" in capsys.readouterr().err


@pytest.mark.parametrize("large", ["--hidden 2000000 --intermediate 2000000", "--hidden 0"])
def test_sizes_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path, large: str
) -> None:
    assert run(monkeypatch, *f"{RUN} {large}".format(here=here).split()) == 2
    assert "Traceback" not in capsys.readouterr().err
