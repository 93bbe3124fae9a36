import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from offsim.errors import InputError
from offsim.files import write_yaml
from offsim.policy.bounds import Bounds
from offsim.study.sweep.database import reading
from offsim.study.sweep.drive import sweep
from offsim.study.sweep.executors import in_process
from offsim.study.sweep.plan import planned

from .made import BASE, SMALL, prepared

ROOT = Path(__file__).parents[3]
LANGUAGES = {"spec": "yaml", "sql": "sql"}


def test_the_only_trace_and_calibration_need_not_be_named(tmp_path: Path) -> None:
    plan = planned(prepared(tmp_path))
    assert len(plan.entries) == 24
    first = json.loads(plan.entries[0].config)
    assert (first["workload"]["trace"], first["calibration"]) == ("toy", "box")
    assert first["link_bytes_per_s"] == 1000.0


def test_equal_scenarios_are_one(tmp_path: Path) -> None:
    twice = [*SMALL["vary"], {"grid": {"policy.bounds": [None, None]}}]
    assert len(planned(prepared(tmp_path, {**SMALL, "vary": twice})).entries) == 24


def test_a_table_of_bounds_is_read_from_its_file(tmp_path: Path) -> None:
    write_yaml(tmp_path / "b.yaml", Bounds.model_validate({"default": 0.5}))
    fixed = {"policy.codec": "cuszp", "policy.bounds": "b.yaml"}
    (entry,) = planned(prepared(tmp_path, {**BASE, "fixed": fixed})).entries
    assert json.loads(entry.config)["policy"]["bounds"]["default"] == 0.5


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"fixed": {"policy.slots": -1}}, "sweep.yaml: policy.slots is -1"),
        ({"fixed": {"policy.slotz": 1}}, "sweep.yaml: no scenario has a field policy.slotz"),
        ({"fixed": {"hardware.link.speed": 1}}, "sweep.yaml: hardware.link.speed: the calibration"),
        ({"fixed": {"policy.bounds": "none.yaml"}}, "none.yaml: cannot be read"),
        ({"traces": {"a": "none"}}, "none: no such trace file"),
        ({"calibrations": {"a": "toy.safetensors"}}, "toy.safetensors: cannot be read (not UTF-8"),
        (
            {"traces": {"a": "toy.safetensors", "b": "toy.safetensors"}},
            "a scenario has no workload.trace",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        planned(prepared(tmp_path, {**BASE, **more}))
    assert says in str(refused.value)
    assert str(refused.value).count(str(tmp_path)) == 1


def block(name: str) -> str:
    """What docs/sweep.md shows between two marks."""
    shown = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8").split(f"<!-- {name} -->")[1]
    return shown.split("<!-- end -->")[0].strip().removeprefix(f"```{LANGUAGES[name]}")[:-3]


def test_the_spec_of_the_docs_is_one_and_its_sql_too(tmp_path: Path) -> None:
    spec = yaml.safe_load(block("spec"))
    for part in ("traces", "calibrations"):
        spec[part] = {name: str(ROOT / file) for name, file in spec[part].items()}
    plan = planned(prepared(tmp_path, spec))
    assert len(plan.entries) == 4 * 3 * 3 * 20
    few = replace(plan, entries=plan.entries[::100])
    sweep(few, tmp_path / "s.sqlite", in_process())
    with reading(tmp_path / "s.sqlite") as sql:
        found = sql.execute(block("sql")).fetchall()
    assert {row[0] for row in found} <= {"raw", "cuszp"}
    assert found[0][2] > 0
    assert all(row[3] > 0 for row in found)
