import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from offsim.cli import display, main
from offsim.codec import CODECS
from offsim.files import write_yaml
from offsim.testbed.load import CHECKPOINT
from offsim.trace import Trace, save_trace
from tests.builders import calibration, codec_figures, trace_of


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `offsim ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["offsim", *arguments])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """A good trace and calibration, and broken ones."""
    save_trace(trace_of([[[0, 1]] * 3, [[1, 2]] * 3]), tmp_path / "good.safetensors")
    write_yaml(tmp_path / "good.yaml", calibration())
    cut = (tmp_path / "good.safetensors").read_bytes()[:-10]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "old.yaml").write_text(
        (tmp_path / "good.yaml").read_text().replace("version: 1", "version: 0")
    )
    made = {path.name.replace(".", "_"): str(path) for path in tmp_path.iterdir()}
    return made | {"here": str(tmp_path)}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("simulate --trace none --calibration {good_yaml}", "none: no such trace file"),
        ("simulate --trace {good_safetensors} --calibration none", "none: cannot be read"),
        ("simulate --trace {cut_safetensors} --calibration {good_yaml}", "cut.safetensors: not a"),
        ("simulate --trace {good_safetensors} --calibration {bad_yaml}", "bad.yaml: cannot be p"),
        ("simulate --trace {good_safetensors} --calibration {old_yaml}", "version is 0"),
        (
            "simulate --trace {good_safetensors} --calibration {good_yaml} --codec zip",
            "no codec is called 'zip'; there are raw",
        ),
        (
            "simulate --trace {good_safetensors} --calibration {good_yaml} --cache best",
            "no cache is called 'best'; there are lru",
        ),
        (
            "simulate --trace {good_safetensors} --calibration {good_yaml} --link -3",
            "--link is `paced`, `plain` or MB/s above zero, not -3",
        ),
        (
            "simulate --trace {good_safetensors} --calibration {good_yaml} --codec sz3 --bound 1",
            "sz3 at bound 1 is not in the calibration",
        ),
        ("run --codec sz3 --bound -1", "an error bound is a positive number, not -1"),
        ("run --codec sz3 --bound nan", "an error bound is a positive number, not nan"),
        ("run --codec raw --bound 0.1", "codec raw is lossless and takes no bound"),
        ("run --codec zip", "no codec is called 'zip'"),
        ("run --cache belady", "belady looks into the future: it needs a trace, not a live run"),
        ("run --cache pinned", "pinned needs a profile"),
        ("run --profile none", "none: no such trace file"),
        ("trace record --out {here}/t --codec sz3", "an error bound is a positive number, not 0"),
        ("trace info {cut_safetensors}", "cut.safetensors: not a whole safetensors file"),
        ("trace info {good_yaml}", "good.yaml: not a whole safetensors file"),
        ("calibrate --out {good_yaml}/c.yaml", "cannot be written"),
        ("calibrate --out {here}/c.yaml --codec sz3:x", "'x' is not a number"),
        ("calibrate --out {here}/c.yaml --codec zip:1", "no codec is called 'zip'"),
        ("check --calibration {bad_yaml}", "bad.yaml: cannot be parsed"),
        ("check --calibration {good_yaml} --out {here}/o", "the calibration is of toy"),
        ("study --out {good_yaml}", "cannot be written"),
        ("report {here}", "summary.json"),
        ("codecs bench --weights gaussian:0", "gaussian:SIGMA with SIGMA above zero, not"),
        ("codecs bench --weights cauchy:1", "--weights is gaussian:SIGMA"),
        ("codecs bench --weights gaussian:1 --checkpoint {here}", "exclude each other"),
        ("codecs bench --checkpoint {here}/none", "none: no such folder"),
        ("codecs bench --bound psnr:60", "no bound is called 'psnr'; there are abs, rel"),
        ("codecs bench --codec cuszp:mode=fast", "cuszp has no mode 'fast'; it has fixed"),
        ("codecs bench --codec cuszp:fast", "'fast' is not an option; write key=value"),
        ("codecs bench --out {good_yaml}", "cannot be written"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inputs: dict[str, str],
    command: str,
    says: str,
) -> None:
    arguments = [part.format_map(inputs) for part in command.split()]
    assert run(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    message = [line for line in shown.err.splitlines() if line.strip()]
    assert len(message) == 1, shown.err
    assert message[0].startswith("offsim: ")
    assert says in message[0]
    assert shown.out == ""


@pytest.mark.parametrize("command", ["", "simulate --slots -1", "nonsense", "run --codec"])
def test_wrong_usage_ends_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, *command.split()) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_simulate_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inputs: dict[str, str]
) -> None:
    files = ("--trace", inputs["good_safetensors"], "--calibration", inputs["good_yaml"])
    assert run(monkeypatch, "simulate", *files, "--slots", "4", "--link", "0.001", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["label"] == "SIMULATED"
    assert metrics["lookups"] == 12
    assert metrics["hit_rate"] == pytest.approx(3 / 12)
    assert metrics["ttft_s"] == pytest.approx(12.0)  # 3 layers: dense, wait, two experts


@pytest.mark.parametrize("command", ["simulate", "serve", "explain", "breakeven"])
def test_a_trace_of_another_codec_is_noted(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    made = trace_of([[[0, 1]] * 3, [[1, 2]] * 3])
    lossy = made.info.model_copy(update={"codec": "cuszp", "bound": 0.5})
    save_trace(Trace(lossy, **made.arrays()), tmp_path / "t.safetensors")
    own = codec_figures("cuszp", 0.5)
    write_yaml(tmp_path / "c.yaml", calibration(codec_figures(), own))
    files = ("--trace", str(tmp_path / "t.safetensors"), "--calibration", str(tmp_path / "c.yaml"))
    asked = (command, *files, "--link", "0.001", "--json")
    assert run(monkeypatch, *asked) == 0
    said = "offsim: note: the trace is of a model under cuszp 0.5; routing under raw may differ"
    assert said in capsys.readouterr().err.splitlines()
    if command != "breakeven":
        assert run(monkeypatch, *asked, "--codec", "cuszp", "--bound", "0.5") == 0
        assert "note" not in capsys.readouterr().err


def test_trace_info_prints_json_and_draws(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inputs: dict[str, str],
    tmp_path: Path,
) -> None:
    picture = tmp_path / "use.png"
    trace = inputs["good_safetensors"]
    command = ("trace", "info", trace, "--slots", "2", "--figure", str(picture), "--json")
    assert run(monkeypatch, *command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tokens"], facts["layers"], facts["working_set_ratio"]) == (2, 3, 1.0)
    assert picture.read_bytes().startswith(b"\x89PNG")


COMMANDS = (
    "study",
    "calibrate",
    "trace record",
    "trace info",
    "simulate",
    "serve",
    "run",
    "check",
    "report",
    "codecs list",
    "codecs bench",
    "profile list",
    "profile make",
    "trace import",
    "trace synth",
    "trace replay",
    "trace curve",
    "trace cut",
    "doctor",
    "evaluate",
    "fidelity",
    "selftest",
    "sensitivity",
    "study paper",
    "model",
    "compress",
    "verify",
    "sweep",
    "results",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, *command.split(), "--help") == 0
    assert f"Example: offsim {command}" in capsys.readouterr().out


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys, offsim.cli.app\n"
        "heavy = {'torch', 'transformers', 'numba', 'pandas', 'scipy', 'simpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_codecs_list_names_every_codec(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "codecs", "list", "--json") == 0
    listed = {row["codec"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(listed) == list(CODECS)
    assert listed["sz3"]["decodes on"] == "host"
    assert listed["rtn-int4"] == {
        "codec": "rtn-int4",
        "decodes on": "device",
        "promises": "none",
        "options": "group=128",
    }


def test_brackets_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    display.show_table("Table", pd.DataFrame({"remedy": ["pip install 'offsim[zfp]'"]}))
    display.show_facts("Facts", {"remedy": "pip install 'offsim[zfp]'"})
    assert capsys.readouterr().out.count("'offsim[zfp]'") == 2


def test_codecs_bench_prints_json_and_writes_a_table_and_a_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    what = ("--weights", "gaussian:0.02", "--count", "4096", "--repeats", "1")
    asked = ("--bound", "rel:0.01", "--bound", "0.0078125")
    out = tmp_path / "new"
    assert run(monkeypatch, "codecs", "bench", *what, *asked, "--out", str(out), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["label"], shown["count"], shown["dtype"]) == ("MEASURED", 4096, "bfloat16")
    rows = {(row["codec"], row["asked"]): row for row in shown["points"]}
    assert ("cuszp:mode=plain", "rel:0.01") in rows
    assert rows["raw", ""]["ratio"] == 1
    assert rows["sz3", "0.0078125"]["largest_error"] <= 0.0078125
    assert sorted(path.name for path in out.iterdir()) == ["codecs.csv", "rate_distortion.png"]
    assert len((out / "codecs.csv").read_text().splitlines()) == len(rows) + 1
    assert (out / "rate_distortion.png").read_bytes().startswith(b"\x89PNG")


def test_codecs_bench_takes_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    what = ("--checkpoint", str(CHECKPOINT), "--count", "4096", "--repeats", "1")
    assert run(monkeypatch, "codecs", "bench", *what, "--codec", "cuszp") == 0
    shown = capsys.readouterr().out
    assert "experts of checkpoint [MEASURED]" in shown
    assert "2⁻¹³" in shown
    assert shown.count("cuszp") == 9
