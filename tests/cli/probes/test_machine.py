import os
import time
from pathlib import Path

import pytest

from offsim.cli.probes import machine


def test_facts_are_those_of_this_machine() -> None:
    assert str(os.cpu_count()) in machine.cores().here
    assert machine.cpu().here
    assert machine.system().here.startswith(os.uname().sysname)
    assert machine.memory().here.split()[1] in ("GB", "MB", "GB,")


@pytest.mark.parametrize(
    ("usable", "here", "has_remedy"), [(4, "4", False), (2, "2 of 4 for this program", False)]
)
def test_cores_that_others_have_are_told(
    monkeypatch: pytest.MonkeyPatch, usable: int, here: str, has_remedy: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), raising=False)
    assert machine.cores().here == here
    assert bool(machine.cores().remedy) == has_remedy
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert "take turns" in machine.cores().remedy


@pytest.mark.parametrize(
    ("limit", "told"), [("1000000\n", True), ("max\n", False), ("9" * 19, False)]
)
def test_memory_names_what_a_container_may_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, told: bool
) -> None:
    (tmp_path / "max").write_text(limit)
    (tmp_path / "info").write_text("MemTotal: 2000 kB\nMemAvailable:    1000 kB\n")
    monkeypatch.setattr(machine, "GROUP_LIMIT", tmp_path / "max")
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "info")
    here = machine.memory().here
    assert "1.02 MB available" in here
    assert here.endswith("1 MB for this container") == told


@pytest.mark.parametrize(("late", "has_remedy"), [(0.0002, False), (0.004, True)])
def test_a_late_clock_is_told(
    monkeypatch: pytest.MonkeyPatch, late: float, has_remedy: bool
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds + late

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = machine.clock()
    assert f"wakes {late * 1e6:.0f} us" in found.here or f"wakes {late * 1e3:.0f} ms" in found.here
    assert "MEASURED" in found.here
    assert bool(found.remedy) == has_remedy
