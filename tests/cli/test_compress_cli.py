import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.files import write_yaml
from tests.study.checkpoints import EXPERTS, LAYERS, TABLE, digests, mixtral_like


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixtral_like(tmp_path_factory.mktemp("cli") / "checkpoint")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `offsim ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["offsim", *map(str, arguments)])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_compress_and_verify(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    asked = (checkpoint, "--codec", "cuszp", "--bound", "sigma:0.25", "--out", out, "--jobs", 1)
    assert run(monkeypatch, "compress", *asked) == 0
    shown = capsys.readouterr().out
    assert "under cuszp [MEASURED]" in shown
    assert f"{LAYERS} layers x {EXPERTS}" in shown
    before = digests(out)
    assert run(monkeypatch, "compress", *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label"] == "MEASURED"
    assert found["job"]["bounds"]["default"] == "sigma:0.25"
    assert found["ratio"] == found["stored_bytes"] / found["payload_bytes"]
    assert digests(out) == before
    assert run(monkeypatch, "verify", out, "--checkpoint", checkpoint, "--jobs", 1) == 0
    shown = capsys.readouterr().out
    assert f"{LAYERS * EXPERTS} experts" in shown
    assert "largest error 0.00" in shown
    assert "[MEASURED]" in shown
    assert run(monkeypatch, "verify", out, "--json", "--jobs", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["experts"] == LAYERS * EXPERTS
    assert found["problems"] == []


def test_a_table_of_bounds(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(tmp_path / "bounds.yaml", TABLE)
    asked = ("--codec", "cuszp", "--bounds", tmp_path / "bounds.yaml", "--out", tmp_path / "out")
    assert run(monkeypatch, "compress", checkpoint, *asked, "--jobs", 1) == 0
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["job"]["bounds"] == TABLE.model_dump(mode="json")


def test_a_policy_of_a_file_is_the_same_as_options(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_yaml(tmp_path / "bounds.yaml", TABLE)
    (tmp_path / "policy.yaml").write_text(
        "format: offsim-policy\nversion: 1\ncodec: cuszp:mode=plain\nbounds: bounds.yaml\n"
    )
    for out, asked in (
        ("one", ("--policy", tmp_path / "policy.yaml")),
        ("two", ("--codec", "cuszp:mode=plain", "--bounds", tmp_path / "bounds.yaml")),
    ):
        into = ("--out", tmp_path / out, "--jobs", 1)
        assert run(monkeypatch, "compress", checkpoint, *asked, *into) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_damage_is_told_with_exit_code_1(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = (checkpoint, "--codec", "raw", "--out", tmp_path / "out", "--jobs", 1)
    assert run(monkeypatch, "compress", *asked) == 0
    (tmp_path / "out" / "foreign").touch()
    assert run(monkeypatch, "verify", tmp_path / "out", "--jobs", 1) == 1
    assert "foreign: not a file of this folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "--codec", "raw"), "nowhere: no such folder"),
        (("{}", "--codec", "cuszp"), "codec cuszp needs a bound"),
        (("{}", "--codec", "cuszp", "--bound", "-1"), "a positive number"),
        (("{}", "--codec", "none", "--bound", "1"), "no codec is called 'none'"),
        (("{}", "--codec", "cuszp", "--bound", "1", "--bounds", "b.yaml"), "exclude each other"),
        (("{}", "--codec", "cuszp", "--bounds", "b.yaml"), "b.yaml: cannot be read"),
        (("{}",), "--codec says how experts are compressed; give it, or --policy"),
        (("{}", "--bound", "1"), "--codec says how experts are compressed"),
        (("{}", "--policy", "p.yaml"), "p.yaml: cannot be read"),
        (("{}", "--policy", "p.yaml", "--codec", "raw"), "--policy says codec and bounds"),
        (("{}", "--policy", "p.yaml", "--bound", "1"), "--policy says codec and bounds"),
        (("{}", "--policy", "p.yaml", "--bounds", "b.yaml"), "--policy says codec and bounds"),
    ],
)
def test_bad_input_is_one_sentence(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    filled = (argument.format(checkpoint) for argument in arguments)
    assert run(monkeypatch, "compress", *filled, "--out", tmp_path / "out", "--jobs", 1) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert said in lines[0]


def test_verify_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "verify", tmp_path / "nowhere") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    """As with a terminal, the whole group is interrupted."""
    source = mixtral_like(tmp_path / "checkpoint", 4, 16, 512, 512)
    out = tmp_path / "out"
    asked = [source, "--codec", "sz3", "--bound", "0.0009765625", "--out", out, "--jobs", "1"]
    command = [sys.executable, "-c", "from offsim.cli import main; main()", "compress"]
    program = subprocess.Popen(
        [*command, *map(str, asked)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    while not (out / "layer-001.blobs.partial").exists() and program.poll() is None:
        signal.sigtimedwait([], 0.02)
    os.killpg(program.pid, signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "keeps what is done; give the same command again" in said
    assert "Traceback" not in said
    assert not (out / "index.json").exists()
