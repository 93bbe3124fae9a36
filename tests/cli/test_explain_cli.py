import json
from pathlib import Path

import pytest

from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import TOY, calibration, codec_figures

from .test_cli import run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A trace, a calibration of its shape with two codecs, and one of another shape."""
    save_trace(TOY, tmp_path / "toy.safetensors")
    write_yaml(tmp_path / "toy.yaml", calibration(codec_figures(), codec_figures("cuszp", 0.5)))
    write_yaml(tmp_path / "other.yaml", calibration(layers=2))
    names = {"trace": "toy.safetensors", "good": "toy.yaml", "other": "other.yaml"}
    return {name: str(tmp_path / file) for name, file in names.items()} | {"here": str(tmp_path)}


def given(files: dict[str, str]) -> tuple[str, ...]:
    return "explain", "--trace", files["trace"], "--calibration", files["good"], "--link", "0.001"


def test_it_prints_json_and_draws(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    picture = Path(files["here"]) / "explained.png"
    asked = ("--slots", "1", "--scope", "global", "--figure", str(picture), "--json")
    assert run(monkeypatch, *given(files), *asked) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["label"] == "SIMULATED"
    split = shown["split"]
    total = sum(split[f"{part}_s"] for part in ("compute", "compulsory", "capacity", "policy"))
    assert total == pytest.approx(shown["policy"]["tpot_s"])
    assert shown["cliff"] == {"pool": 3, "cycle": 6}
    assert shown["setting"]["slots"] == 1
    assert shown["link_bytes_per_s"] == 1000
    assert [change["resource"] for change in shown["changes"]] == ["cache", "link", "compression"]
    assert shown["working_sets"][0]["median_ratio"] == 2  # a prompt of one token, one slot
    assert shown["answers"][-1].startswith("Warning: the LRU pool holds 3 experts")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_it_prints_tables_and_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: dict[str, str]
) -> None:
    asked = ("--codec", "cuszp", "--bound", "0.5", "--slots", "0", "--prefetch", "last-token")
    assert run(monkeypatch, *given(files), *asked, "--channels", "2") == 0
    shown = capsys.readouterr().out
    assert "cuszp 0.5, lru 0, last-token 1 ahead, 2 channels and its bounds" in shown
    assert "Belady, same slots (bound)" in shown
    assert "Bottleneck: compute." in shown
    for begin in ("Stall: ", "Next cache: ", "Next link: ", "Next compression: ", "Prefetch: "):
        assert begin in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--trace {trace} --calibration {other}", "the trace has 3 layers of 4 experts"),
        ("--trace {trace} --calibration {good} --codec sz3 --bound 1", "sz3 at bound 1 is not in"),
        ("--trace {trace} --calibration {good} --cache belady", "belady is the bound"),
        ("--trace {trace} --calibration {good} --cache pinned", "pinned needs a profile"),
        ("--trace {trace} --calibration {good} --link fast", "--link is `paced`"),
        ("--trace {trace} --calibration {good} --prefetch gate", "record one with --lookahead 1"),
        ("--trace {trace} --calibration {good} --prefetch best", "no prefetcher is called 'best'"),
        ("--trace none --calibration {good}", "none: no such trace file"),
        ("--trace {trace} --calibration {good} --figure {good}/x.png", "cannot be written"),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    arguments: str,
    says: str,
) -> None:
    asked = arguments.format(**files).split()
    link = () if "--link" in asked else ("--link", "1")
    assert run(monkeypatch, "explain", *asked, *link) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len([line for line in shown.err.splitlines() if line.strip()]) == 1
    assert shown.out == ""
