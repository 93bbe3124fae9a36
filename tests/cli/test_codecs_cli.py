"""`offsim codecs bench` on the experts of checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import EXPERTS, FAMILIES, HIDDEN, MOE_LAYERS, WIDTH, family
from tests.model.test_reader import HIDDEN as WIDE
from tests.model.test_reader import checkpoint as saved
from tests.model.test_reader import each, fp8, in_mxfp4

from .test_cli import run

ASKED = ("--codec", "cuszp", "--bound", "0.0078125", "--repeats", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sampled") / "tiny"
    family("granitemoe").to(torch.bfloat16).save_pretrained(folder)
    return folder


def bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *asked: str
) -> dict[str, Any]:
    assert run(monkeypatch, "codecs", "bench", *asked, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_every_architecture(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    family(name).to(torch.bfloat16).save_pretrained(tmp_path / "tiny")
    where = ("--checkpoint", str(tmp_path / "tiny"))
    found = bench(monkeypatch, capsys, *where, "--count", "1024", *ASKED)
    assert (found["label"], found["weights"]) == ("MEASURED", "experts of tiny")
    assert (found["count"], found["dtype"]) == (1024, "bfloat16")
    (point,) = found["points"]
    assert 0 < point["largest_error"] <= 0.0078125
    everything = bench(monkeypatch, capsys, *where, *ASKED)
    assert everything["count"] == MOE_LAYERS[name] * EXPERTS * 2 * WIDTH * HIDDEN


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_rows_of_packed_weights_are_bf16_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    kind: str,
) -> None:
    tensors = in_mxfp4() if kind == "mxfp4" else fp8(each(), (128, 128))[0]
    where = ("--checkpoint", str(saved(tmp_path, tensors)))
    assert run(monkeypatch, "codecs", "bench", *where, "--count", "640", *ASKED, "--json") == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["count"], found["dtype"]) == (10 * WIDE, "bfloat16")
    assert f"stored in {kind.upper()}" in " ".join(shown.err.split())


def test_a_sample_of_experts_has_intervals_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    where = ("--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), *ASKED)
    found = bench(monkeypatch, capsys, *where, "--experts", "7")
    assert (found["checkpoint"], found["experts"], found["population"]) == ("tiny", 7, 24)
    assert (found["stored_as"], found["dtype"], found["seed"]) == ("BF16", "bfloat16", 0)
    assert found["stored_bytes"] == 3 * HIDDEN * WIDTH * 2
    (point,) = found["points"]
    assert point["ratio_low"] < point["ratio"] < point["ratio_high"]
    rows = sorted((tmp_path / "out" / "experts").iterdir())
    before = [path.read_text() for path in rows]
    assert sum(map(str.count, before, ["\n"] * 3)) == 7
    more = bench(monkeypatch, capsys, *where, "--experts", "all")
    assert more["experts"] == 24
    (point,) = more["points"]
    assert point["ratio_low"] == point["ratio"] == point["ratio_high"]
    for path, text in zip(rows, before, strict=True):
        assert path.read_text().startswith(text), "what was measured is not measured again"
    assert (tmp_path / "out" / "codecs.csv").exists()
    assert (tmp_path / "out" / "rate_distortion.png").read_bytes().startswith(b"\x89PNG")


def test_a_sample_is_shown_with_its_population(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    asked = ("--checkpoint", str(checkpoint), "--experts", "3", "--seed", "4", *ASKED)
    assert run(monkeypatch, "codecs", "bench", *asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 of 24 experts of tiny, as bfloat16; ratios with 95 % intervals" in shown
    assert "[MEASURED]" in shown


def test_another_sample_into_the_same_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    where = ("--checkpoint", str(checkpoint), "--out", str(tmp_path), "--experts", "1")
    bench(monkeypatch, capsys, *where, *ASKED)
    assert run(monkeypatch, "codecs", "bench", *where, *ASKED[:2], "--bound", "0.5") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "measured with the bounds 0.0078125, not 0.5; give the same" in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("--experts 3", "--experts takes whole experts of --checkpoint; leave out --count"),
        ("--checkpoint {0} --experts 3 --count 64", "leave out --count"),
        ("--checkpoint {0} --experts 0", "--experts is a number from 1 on or `all`, not 0"),
        ("--checkpoint {0} --experts some", "a number from 1 on or `all`, not some"),
        ("--checkpoint {0} --seed 3", "--seed is of the experts that --experts draws"),
        ("--seed 0", "--seed is of the experts that --experts draws"),
        ("--checkpoint {0}/none --experts 3", "none: no such folder"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    command: str,
    says: str,
) -> None:
    assert run(monkeypatch, "codecs", "bench", *command.format(checkpoint).split()) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert says in lines[0]
