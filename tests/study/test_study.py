import json
from pathlib import Path

import pandas as pd
import pytest

from offsim.calibration.schema import Calibration
from offsim.files import read_yaml
from offsim.report import write_report
from offsim.study.calibrate import Effort
from offsim.study.plan import STORAGES, Plan
from offsim.study.study import study
from offsim.testbed.tasks import TASKS
from offsim.trace import load_trace

SMALL = Plan(
    Effort(rounds=1, requests=1, tokens=4, repeats=2),
    requests=1, tokens=3, slots=(3,), paces=(4.0,), repeats=1, items=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    study(out, SMALL)
    return out


def test_a_study_leaves_everything_it_promises(folder: Path) -> None:
    facts = json.loads((folder / "summary.json").read_text())
    assert facts["policies_checked"] == len(STORAGES)
    assert facts["decision_logs_equal"] is True
    assert facts["tokens_equal"] is True
    assert facts["bytes_equal"] is True
    assert facts["every_expert_within_its_bound"] is True
    for key in ("tpot_error_median", "tpot_error_max", "ttft_error_median", "kendall_tau"):
        assert isinstance(facts[key], float)
    calibration = read_yaml(folder / "calibration.yaml", Calibration)
    assert [(c.codec, c.bound) for c in calibration.codecs] == list(STORAGES)
    assert all(c.largest_error <= c.bound for c in calibration.codecs)
    trace = load_trace(folder / "traces" / "raw-0.safetensors")
    assert (trace.layers, trace.top_k, trace.info.experts_per_layer) == (9, 2, 8)
    accuracy = pd.read_csv(folder / "accuracy.csv")
    assert len(accuracy) == len(STORAGES) * (len(TASKS) + 1)


def test_a_report_is_made_of_it(folder: Path) -> None:
    page = write_report(folder)
    text = page.read_text()
    assert "MEASURED" in text
    assert "SIMULATED" in text
    assert not list(folder.rglob("*.partial"))
