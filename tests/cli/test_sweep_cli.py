import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from offsim.calibration.profiles import load_profile
from offsim.files import write_json
from offsim.study.sweep import drive
from tests.study.optimize.cases import losses
from tests.study.sweep.made import BASE, REFUSED, SMALL, prepared

from .test_cli import run


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, str]:
    """A SPEC and the file of its results."""
    spec, out = prepared(tmp_path), tmp_path / "new" / "small.sqlite"
    assert run(monkeypatch, "sweep", str(spec), "--out", str(out), "--jobs", "1", "--json") == 0
    return str(spec), str(out)


def listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *asked: str
) -> dict[str, Any]:
    capsys.readouterr()
    assert run(monkeypatch, "results", *asked, "--json") == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def test_it_says_what_it_did(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    swept: tuple[str, str],
) -> None:
    first = json.loads(capsys.readouterr().out)
    assert (first["scenarios"], first["known"], first["refused"]) == (24, 0, 0)
    spec, out = swept
    assert run(monkeypatch, "sweep", spec, "--out", out, "--jobs", "1") == 0
    shown = capsys.readouterr().out
    assert "Sweep of sweep.yaml [SIMULATED]" in shown
    assert "answered before │ 24" in shown


def test_results_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], swept: tuple[str, str]
) -> None:
    capsys.readouterr()
    assert run(monkeypatch, "results", swept[1], "--sort", "-tpot_s", "--limit", "3") == 0
    shown = capsys.readouterr().out
    assert "small.sqlite: 24 done [SIMULATED]" in shown
    assert "policy.slots" in shown
    assert "policy.distance" not in shown  # the same in all
    assert "21 more; --limit 24 lists them, --export all" in shown


def test_results_are_filtered_and_sorted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], swept: tuple[str, str]
) -> None:
    asked = ("--where", "policy.codec == 'raw' and policy.slots <= 2", "--sort", "tpot_s")
    shown = listed(monkeypatch, capsys, swept[1], *asked)
    assert shown["counts"] == {"done": 8, "refused": 0, "open": 0}
    times = [row["tpot_s"] for row in shown["scenarios"]]
    assert times == sorted(times)
    assert {row["label"] for row in shown["scenarios"]} == {"SIMULATED"}


def test_what_nothing_beats_is_listed_and_drawn(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    swept: tuple[str, str],
    tmp_path: Path,
) -> None:
    known, picture = tmp_path / "sensitivity.json", tmp_path / "front.png"
    write_json(known, losses().model_dump(mode="json"))
    asked = ("--pareto", "tpot_s,device_bytes,kl,usd_per_mtoken", "--figure", str(picture))
    priced = ("--sensitivity", str(known), "--hardware", "a100-80gb-pcie4")
    shown = listed(monkeypatch, capsys, swept[1], *asked, *priced)
    every = listed(monkeypatch, capsys, swept[1], *priced, "--limit", "24")["scenarios"]
    assert 0 < len(shown["scenarios"]) == shown["counts"]["done"] < len(every)
    first = shown["scenarios"][0]
    assert first["tpot_s"] == min(row["tpot_s"] for row in every)
    price = first["usd_per_mtoken"] * first["tokens_per_s"] * 3600 / 1e6
    assert price == pytest.approx(load_profile("a100-80gb-pcie4").gpu.price_usd_per_h.value)  # type: ignore[union-attr]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(monkeypatch, "results", swept[1], "--pareto", "-tokens_per_s,host_bytes") == 0
    assert "small.sqlite, what nothing beats" in capsys.readouterr().out


def test_refusals_are_told_by_their_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec, out = prepared(tmp_path, REFUSED), str(tmp_path / "s.sqlite")
    assert run(monkeypatch, "sweep", str(spec), "--out", out, "--jobs", "1") == 0
    assert run(monkeypatch, "results", out) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "s.sqlite: 0 done, 1 refused" in shown
    assert "cuszp at bound 0.25 is not in the calibration" in shown


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_results_are_exported(
    monkeypatch: pytest.MonkeyPatch, swept: tuple[str, str], tmp_path: Path, suffix: str
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra parquet (pyarrow)")
    path = tmp_path / f"all.{suffix}"
    assert run(monkeypatch, "results", swept[1], "--export", str(path), "--limit", "1") == 0
    table = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    assert len(table) == 24
    assert {"policy.slots", "hardware.link.latency_s", "tpot_s", "engine"} <= set(table.columns)
    assert "config" not in table


def test_without_pyarrow_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    swept: tuple[str, str],
    tmp_path: Path,
) -> None:
    def none(*_: object, **__: object) -> None:
        raise ImportError

    monkeypatch.setattr(pd.DataFrame, "to_parquet", none)
    assert run(monkeypatch, "results", swept[1], "--export", str(tmp_path / "a.parquet")) == 2
    assert "Parquet needs pyarrow: pip install 'offsim[parquet]'" in capsys.readouterr().err
    assert not (tmp_path / "a.parquet").exists()


def test_sweeps_are_compared(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    swept: tuple[str, str],
    tmp_path: Path,
) -> None:
    fewer = prepared(tmp_path, {**SMALL, "fixed": {**SMALL["fixed"], "policy.seed": 0}})
    other = str(tmp_path / "other.sqlite")
    assert run(monkeypatch, "sweep", str(fewer), "--out", other, "--jobs", "1") == 0
    csv = tmp_path / "compared.csv"
    asked = (swept[1], "--against", other, "--where", "policy.slots > 1")
    shown = listed(monkeypatch, capsys, *asked, "--export", str(csv))
    assert (shown["both"], shown["only"], shown["only_against"]) == (18, 0, 0)
    assert shown["changes"]["tpot_s"] == {"least": 0.0, "median": 0.0, "most": 0.0}
    assert len(pd.read_csv(csv)) == 18
    assert run(monkeypatch, "results", *asked) == 0
    table = capsys.readouterr().out
    assert "small.sqlite against other.sqlite [SIMULATED]" in table
    assert "+0.00% / +0.00% / +0.00% (least, median, most)" in table


def test_stopped_it_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec, out = str(prepared(tmp_path)), str(tmp_path / "s.sqlite")
    asked = []

    def stop(*parts: Any) -> Any:
        asked.append(parts)
        if len(asked) > 2:
            raise KeyboardInterrupt
        return answers(*parts)

    answers = drive.answers
    with monkeypatch.context() as stopping:
        stopping.setattr(drive, "answers", stop)
        assert run(stopping, "sweep", spec, "--out", out, "--jobs", "1") == 130
    assert f"{out} has all answers so far; the same command goes on" in capsys.readouterr().err
    assert listed(monkeypatch, capsys, out)["counts"] == {"done": 12, "refused": 0, "open": 12}
    assert run(monkeypatch, "sweep", spec, "--out", out, "--jobs", "1") == 0
    assert listed(monkeypatch, capsys, out)["counts"] == {"done": 24, "refused": 0, "open": 0}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("sweep none --out {out}", "none: cannot be read"),
        ("sweep {spec} --out {spec}", "sweep.yaml: not the file of a sweep"),
        ("sweep {spec} --out {spec}/x", "x: cannot be written"),
        ("sweep {spec} --out {out} --dask tcp://x --jobs 2", "leave it out beside --dask"),
        ("results none", "none: no such file of a sweep"),
        ("results {spec}", "sweep.yaml: not the file of a sweep"),
        ("results {done} --where speed", "--where 'speed' is not a condition, such as"),
        ("results {done} --sort speed", "no scenario has a field 'speed'"),
        ("results {done} --show speed", "no scenario has a field 'speed'"),
        ("results {done} --export x.xls", "--export x.xls: a file is .csv or .parquet"),
        ("results {done} --against none", "none: no such file of a sweep"),
        ("results {done} --pareto tpot_s", "--pareto 'tpot_s': give two aims or more"),
        ("results {done} --pareto tpot_s,kl", "--pareto kl: no column of numbers of this name"),
        ("results {done} --figure a.png", "--figure a.png: a .png of --pareto; give both"),
        ("results {done} --hardware none", "none"),
        ("results {done} --sensitivity none", "none"),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    swept: tuple[str, str],
    command: str,
    says: str,
) -> None:
    capsys.readouterr()
    names = {"spec": swept[0], "done": swept[1], "out": str(tmp_path / "out.sqlite")}
    assert run(monkeypatch, *command.format(**names).split()) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len([line for line in shown.err.splitlines() if line.strip()]) == 1
    assert shown.out == ""


def test_without_distributed_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "offsim.study.sweep.cluster", raising=False)
    asked = ("sweep", str(prepared(tmp_path)), "--out", str(tmp_path / "s.sqlite"))
    assert run(monkeypatch, *asked, "--dask", "tcp://x") == 2
    assert "--dask needs distributed: pip install 'offsim[cluster]'" in capsys.readouterr().err


def test_a_wrong_field_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = prepared(tmp_path, {**BASE, "fixed": {"policy.slots": -1}})
    assert run(monkeypatch, "sweep", str(spec), "--out", str(tmp_path / "s.sqlite")) == 2
    assert "sweep.yaml: policy.slots is -1: Input should be" in capsys.readouterr().err
    assert not (tmp_path / "s.sqlite").exists()
