"""The 90 % band of `offsim simulate`, and that of `offsim check` and `offsim study`."""

import json
from pathlib import Path

import pandas as pd
import pytest

from offsim.calibration.replicates import replicates_of
from offsim.calibration.uncertainty import InnerRun
from offsim.cli.check import show_comparison
from offsim.files import write_yaml
from offsim.trace import save_trace
from tests.builders import TOY, calibration

from .test_cli import run


@pytest.fixture
def asked(tmp_path: Path) -> tuple[str, ...]:
    made = calibration()
    others = [calibration(dense_s=0.75), calibration(dense_s=1.25)]
    inner = InnerRun(run="raw", prefill=[(1.0,)] * 4, decode=[(1.0,)] * 4)
    known = {"replicates": replicates_of(made, others), "inner_runs": [inner]}
    write_yaml(tmp_path / "plain.yaml", made)
    write_yaml(tmp_path / "c.yaml", made.model_copy(update=known))
    save_trace(TOY, tmp_path / "t.safetensors")
    trace, machine = str(tmp_path / "t.safetensors"), str(tmp_path / "c.yaml")
    return ("simulate", "--trace", trace, "--link", "0.001", "--calibration", machine)


def test_a_band_stands_beside_each_metric(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *asked, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert sorted(facts["band_90"]) == [
        "itl_p50_s", "itl_p95_s", "tokens_per_s", "tpot_s", "ttft_s"
    ]  # fmt: skip
    for name, (low, high) in facts["band_90"].items():
        assert low < facts[name] < high
    assert run(monkeypatch, *asked) == 0
    shown = capsys.readouterr().out
    assert "[SIMULATED]" in shown
    for said in ("; 90 % band ", "; 90 % band of p50 ", "; 90 % band of p95 ", "tokens/s; 90 %"):
        assert said in shown


def test_there_may_be_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *asked, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    plain = (*asked[:-1], str(Path(asked[-1]).with_name("plain.yaml")))
    for without in ((*asked, "--no-band"), plain):
        assert run(monkeypatch, *without, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found == {name: value for name, value in facts.items() if name != "band_90"}


def test_a_comparison_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "codec": "raw", "bound": 0.0, "slots": 2, "link_MB_per_s": 30.0, "tpot_simulated": 0.01,
        "tpot_measured": 0.011, "tpot_error": -0.09, "ttft_error": 0.1, "hit_rate_measured": 0.5,
        "decisions_equal": True, "tpot_low": 0.0095, "tpot_high": 0.0125,
    }  # fmt: skip
    facts = {
        "policies_checked": 1, "tpot_error_median": 0.09, "tpot_error_max": 0.09,
        "ttft_error_median": 0.1, "kendall_tau": None, "decision_logs_equal": True,
        "covered": {"ttft": 0.0, "tpot": 1.0}, "band_level": 0.9,
    }  # fmt: skip
    show_comparison(pd.DataFrame([row]), facts)
    shown = capsys.readouterr().out
    assert "9.50 to 12.50" in shown
    assert "measured within the 90% band: ttft 0%, tpot 100%" in shown
    show_comparison(pd.DataFrame([row]), {**facts, "covered": None, "band_level": None})
    assert "band" not in capsys.readouterr().out
