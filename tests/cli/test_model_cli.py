"""`offsim model` on checkpoints of every architecture."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from offsim.calibration.describe import describe
from offsim.calibration.profiles import load_shape
from tests.families import FAMILIES, family

from .test_cli import run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described") / "tiny"
    family("qwen2-moe").to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_json_has_every_number(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    family(name).config.save_pretrained(tmp_path)
    assert run(monkeypatch, "model", str(tmp_path / "config.json"), "--json") == 0
    found, said = describe(tmp_path), json.loads(capsys.readouterr().out)
    shape = found.shape
    assert said["label"] == "ESTIMATED"
    assert said["model_type"] == found.model_type
    assert said["moe_layers"] == list(found.moe_layers)
    assert said["experts_from_tensors"] is False
    assert said["expert_bytes"] == shape.expert_bytes
    assert said["experts_bytes"] == shape.experts_bytes
    assert said["resident_bytes"] == shape.resident_bytes
    assert said["parameters"] == shape.parameters
    assert said["dense_flop_per_token"] == found.dense_flop
    assert said["expert_flop_per_token"] == found.expert_flop
    assert said["attention_flop_per_token_pair"] == found.attention_flop
    assert said["kv_bytes_per_token"] == found.kv_bytes
    assert said["shape"] == shape.model_dump(mode="json")


def test_people_read_it_in_units(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    assert run(monkeypatch, "model", str(checkpoint)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "tiny [ESTIMATED]" in shown
    assert "3, of which 2 (0, 2) have experts" in shown
    assert "8, top-3, 352 shared" in shown
    assert "BF16, 16 bits a weight (from the tensors)" in shown
    assert "they are counted as if so" in shown


def test_a_shape_is_written_for_profiles(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "new" / "shape.yaml"
    asked = ("model", str(checkpoint), "--title", "Tiny", "--out", str(out))
    assert run(monkeypatch, *asked) == 0
    assert f"shape: {out}" in " ".join(capsys.readouterr().out.split())
    shape = load_shape(out)
    assert shape == describe(checkpoint).shape.model_copy(update={"title": "Tiny"})
    assert yaml.safe_load(out.read_text())["format"] == "offsim-model"


def test_windows_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    family("gpt-oss", sliding_window=16).config.save_pretrained(tmp_path)
    assert run(monkeypatch, "model", str(tmp_path)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "in windows (2 layers: 16 tokens)" in shown
    assert "Biases are left out." in shown


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"model_type": "llama"}', "model_type is 'llama', of which offsim knows no routed"),
        ("{", "config.json: cannot be parsed"),
        (None, "config.json: cannot be read"),
    ],
)
def test_what_cannot_be_described_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str | None,
    says: str,
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert run(monkeypatch, "model", str(tmp_path)) == 2
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert says in lines[0]
    assert shown.out == ""
