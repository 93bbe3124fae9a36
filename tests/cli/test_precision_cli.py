import json
from pathlib import Path

import pytest

from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import calibration, codec_figures
from tests.simulate.traffic import requests_of

from .test_cli import run


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """A trace with weights, and a calibration of three codecs."""
    save_trace(requests_of([(3, 6), (2, 5)], 3, 4), tmp_path / "toy.safetensors")
    figures = calibration(
        codec_figures(),
        codec_figures("cuszp", 0.5, blob_bytes=100, decode_s=0.1),
        codec_figures("sz3", 0.5),
        codec_figures("rtn-int4", blob_bytes=300),
    )
    write_yaml(tmp_path / "toy.yaml", figures)
    return (
        "simulate",
        "--trace",
        str(tmp_path / "toy.safetensors"),
        "--calibration",
        str(tmp_path / "toy.yaml"),
        "--link",
        "0.001",
        "--slots",
        "2",
    )


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, float]:
    assert run(monkeypatch, *arguments, "--json") == 0
    metrics: dict[str, float] = json.loads(capsys.readouterr().out)
    return metrics


def test_misses_of_low_weight_move_fewer_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    plain = shown(monkeypatch, capsys, *files)
    coarse = shown(monkeypatch, capsys, *files, "--low", "cuszp:0.5", "--low-below", "0.3")
    assert coarse["link_bytes"] < plain["link_bytes"]
    assert coarse["hit_rate"] <= plain["hit_rate"], "what is there coarse may have to come again"
    tiny = shown(monkeypatch, capsys, *files, "--low", "cuszp:0.5", "--low-below", "1e-9")
    assert tiny == plain


def test_it_is_said_what_comes_coarse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *files, "--low", "rtn-int4", "--low-below", "0.3") == 0
    assert "raw, rtn-int4 below a weight of 0.3, lru 2 [SIMULATED]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--low", "cuszp:0.5"), "--low and --low-below say together what comes coarse"),
        (("--low-below", "0.5"), "--low and --low-below say together what comes coarse"),
        (("--low", "zip:1", "--low-below", "0.5"), "no codec is called 'zip'; there are raw"),
        (("--low", "cuszp:x", "--low-below", "0.5"), "--low cuszp:x: 'x' is not a number"),
        (("--low", "cuszp", "--low-below", "0.5"), "an error bound is a positive number, not 0"),
        (("--low", "cuszp:-1", "--low-below", "0.5"), "is a positive number, not -1"),
        (("--low", "raw:1", "--low-below", "0.5"), "codec raw is lossless and takes no bound"),
        (("--low", "cuszp:mode=plain", "--low-below", "0.5"), "a positive number, not 0"),
        (("--low", "cuszp:0.5", "--low-below", "0"), "low.below is 0.0: Input should be greater"),
        (("--low", "cuszp:0.5", "--low-below", "1.5"), "low.below is 1.5: Input should be less"),
        (("--low", "cuszp:0.25", "--low-below", "0.5"), "cuszp at bound 0.25 is not in the cali"),
        (
            ("--low", "cuszp:mode=plain:0.5", "--low-below", "0.5"),
            "cuszp:mode=plain at bound 0.5 is not in the calibration",
        ),
        (("--low", "sz3:0.5", "--low-below", "0.5"), "take two that decode in one place"),
        (
            ("--low", "cuszp:0.5", "--low-below", "0.5", "--keep", "compressed"),
            "come coarse only where host memory holds all blobs",
        ),
    ],
)
def test_wrong_values_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: tuple[str, ...],
    options: tuple[str, ...],
    says: str,
) -> None:
    assert run(monkeypatch, *files, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_a_replay_without_time_has_no_such_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], files: tuple[str, ...]
) -> None:
    assert run(monkeypatch, "trace", "replay", files[2], "--low", "cuszp:0.5") == 2
    assert "--low" in capsys.readouterr().err
