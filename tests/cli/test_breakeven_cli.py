import json
from pathlib import Path

import pytest

from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import calibration, codec_figures
from tests.study.cases import ALTERNATING

from .test_cli import run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A trace, and calibrations with a codec that pays below 1 GB/s, with raw alone, of others."""
    raw = codec_figures(blob_bytes=10**9)
    lossy = codec_figures("cuszp", 0.5, blob_bytes=5 * 10**8, decode_s=0.5)
    save_trace(ALTERNATING, tmp_path / "toy.safetensors")
    write_yaml(tmp_path / "toy.yaml", calibration(raw, lossy))
    write_yaml(tmp_path / "raw.yaml", calibration(raw))
    write_yaml(tmp_path / "other.yaml", calibration(experts=5))
    names = {"trace": "toy.safetensors"} | {n: f"{n}.yaml" for n in ("toy", "raw", "other")}
    return {name: str(tmp_path / file) for name, file in names.items()} | {"here": str(tmp_path)}


def given(files: dict[str, str]) -> tuple[str, ...]:
    files_given = "--trace", files["trace"], "--calibration", files["toy"]
    return "breakeven", *files_given, "--link", "500", "--slots", "1"


def test_it_prints_json_and_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    picture = Path(files["here"]) / "breakeven.png"
    assert run(monkeypatch, *given(files), "--figure", str(picture), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["label"] == "SIMULATED"
    (one,) = shown["codecs"]
    assert one["verdict"] == "below"
    assert one["crossings"][0]["bytes_per_s"] == pytest.approx(1e9, rel=0.01)
    assert one["faster_slots"] == shown["slots"] == [0, 1, 2, 3, 4]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_prints_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    asked = ("--codec", "cuszp:0.5", "--channels", "2", "--decoders", "2")
    assert run(monkeypatch, *given(files), *asked) == 0
    shown = capsys.readouterr().out
    assert "Break-even with raw, lru 1, 2 channels, 2 host decoders [SIMULATED]" in shown
    assert "faster than raw, 1 MB/s to 10 TB/s" in shown
    assert "at 500 MB/s, by slots" in shown
    assert "always faster" in shown
    assert "One expert alone, without queues [ESTIMATED]" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--calibration {other}", "the trace has 3 layers of 4 experts"),
        ("--calibration {raw}", "no codec but raw"),
        ("--calibration {toy} --codec cuszp:0.25", "cuszp at bound 0.25 is not in the calibration"),
        ("--calibration {toy} --codec cuszp:x", "'x' is not a number"),
        ("--calibration {toy} --codec zip:1", "no codec is called 'zip'"),
        ("--calibration {toy} --cache best", "no cache is called 'best'"),
        ("--calibration {toy} --figure {toy}/x.png", "cannot be written"),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    arguments: str,
    says: str,
) -> None:
    asked = ("--trace", files["trace"], "--link", "1", *arguments.format(**files).split())
    assert run(monkeypatch, "breakeven", *asked) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len([line for line in shown.err.splitlines() if line.strip()]) == 1
    assert shown.out == ""
