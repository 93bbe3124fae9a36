from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from offsim.files import write_yaml
from offsim.study.sweep.compare import compared
from offsim.study.sweep.database import reading
from offsim.study.sweep.drive import sweep
from offsim.study.sweep.executors import in_process
from offsim.study.sweep.plan import planned
from offsim.study.sweep.query import rows

from .made import MACHINE, SMALL, prepared


def swept(folder: Path, spec: dict[str, Any], speed: float = 1.0) -> pd.DataFrame:
    """Rows of a sweep on a machine that computes so many times as fast."""
    path = prepared(folder, spec)
    compute = MACHINE.compute
    times = {
        name: [
            row.model_copy(
                update={
                    "seconds": row.seconds.model_copy(update={"value": row.seconds.value / speed})
                }
            )
            for row in getattr(compute, name)
        ]
        for name in ("first", "dense", "expert")
    }
    changed = MACHINE.model_copy(update={"compute": compute.model_copy(update=times)})
    write_yaml(folder / "box.yaml", changed)
    out = folder / f"{speed}.sqlite"
    sweep(planned(path), out, in_process())
    with reading(out) as sql:
        return rows(sql)


def test_a_machine_is_held_against_another_one(tmp_path: Path) -> None:
    grid, storages, _ = SMALL["vary"]
    fewer = {**SMALL, "vary": [{"grid": {**grid["grid"], "policy.slots": [3, 4, 5]}}, storages]}
    usual = {**SMALL, "vary": [grid, storages]}
    found = compared(swept(tmp_path, usual), swept(tmp_path, fewer, speed=2.0))
    assert (len(found.table), found.only, found.only_against) == (12, 12, 6)
    one = found.table.iloc[0]
    assert one["tpot_s_change"] == pytest.approx(one["tpot_s"] / one["tpot_s_against"] - 1)
    assert found.table["tpot_s_change"].abs().is_monotonic_decreasing
    assert (found.table["tpot_s_change"] > 0).all()
    assert (found.table["hit_rate_change"] == 0).all()
    least, median, most = found.changes["tpot_s"]
    assert 0 < least <= median <= most <= 1
    assert "policy.slots" in found.table


def test_of_a_config_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    slow, fast = swept(tmp_path, SMALL), swept(tmp_path, SMALL, speed=2.0)
    fast["number"] += len(slow)
    both = pd.concat([slow, fast], ignore_index=True)
    found = compared(both, fast)
    assert (found.only, found.only_against) == (0, 0)
    assert found.changes["tpot_s"] == (0.0, 0.0, 0.0)


def test_what_was_refused_is_not_compared(tmp_path: Path) -> None:
    table = swept(tmp_path, SMALL)
    half = table.assign(status=["done", "refused"] * 12)
    found = compared(half, table)
    assert (len(found.table), found.only, found.only_against) == (12, 0, 12)
