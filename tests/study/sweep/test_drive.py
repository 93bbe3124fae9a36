"""Sweeps in this process and in others; killed ones end as those that were left in peace."""

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from offsim.errors import RunError
from offsim.study.sweep import drive
from offsim.study.sweep.database import reading
from offsim.study.sweep.drive import sweep
from offsim.study.sweep.executors import Crew, in_process, processes
from offsim.study.sweep.inputs import Inputs
from offsim.study.sweep.plan import Plan, planned

from .made import BASE, REFUSED, all_rows, prepared

DRIVER = """
import multiprocessing, sys, time
from pathlib import Path
from offsim.study.sweep.drive import sweep
from offsim.study.sweep.executors import processes
from offsim.study.sweep.plan import planned

def tell(what, share):
    if share >= 0.5:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)

if __name__ == "__main__":
    sweep(planned(Path(sys.argv[1])), Path(sys.argv[2]), processes(2), tell)
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(prepared(tmp_path))


@pytest.fixture
def undisturbed(plan: Plan, tmp_path: Path) -> list[tuple[object, ...]]:
    """All rows of a sweep that nobody stopped."""
    sweep(plan, tmp_path / "undisturbed.sqlite", in_process())
    return all_rows(tmp_path / "undisturbed.sqlite")


def test_each_scenario_has_a_row(
    tmp_path: Path, undisturbed: list[tuple[object, ...]], plan: Plan
) -> None:
    assert [row[1] for row in undisturbed] == [entry.key for entry in plan.entries]
    assert {row[2] for row in undisturbed} == {"done"}
    told: list[tuple[str, float]] = []
    done = sweep(plan, tmp_path / "undisturbed.sqlite", in_process(), lambda *a: told.append(a))
    assert (done.scenarios, done.known, done.refused) == (24, 24, 0)
    assert told == [("24 of 24 scenarios", 1.0)]


def test_a_refusal_is_a_row(tmp_path: Path) -> None:
    plan = planned(prepared(tmp_path, REFUSED))
    assert sweep(plan, tmp_path / "s.sqlite", in_process()).refused == 1
    ((_, _, status, error, *_),) = all_rows(tmp_path / "s.sqlite")
    assert status == "refused"
    assert str(error).startswith("cuszp at bound 0.25 is not in the calibration")


def test_progress_has_a_rate_and_the_time_that_is_left() -> None:
    assert drive._so_far(4000, 1000, 2000, 10.0) == (
        "2,000 of 4,000 scenarios, 100/s, 0:00:20 left",
        0.5,
    )


def test_a_sweep_that_was_stopped_goes_on(
    tmp_path: Path, undisturbed: list[tuple[object, ...]], plan: Plan
) -> None:
    def stop(_: str, share: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    out = tmp_path / "stopped.sqlite"
    with pytest.raises(KeyboardInterrupt):
        sweep(plan, out, in_process(), stop)
    with reading(out) as sql:
        counts = dict(sql.execute("SELECT status, count(*) FROM scenarios GROUP BY status"))
        assert sql.execute("SELECT workers, answers FROM runs").fetchall() == [("this process", 12)]
    assert counts == {"done": 12, "open": 12}
    assert sweep(plan, out, in_process()).known == 12
    assert all_rows(out) == undisturbed


def test_a_larger_sweep_uses_what_is_known(tmp_path: Path) -> None:
    out = tmp_path / "s.sqlite"
    few, more = ({**BASE, "vary": [{"grid": {"policy.slots": s}}]} for s in ([2, 3], [1, 2, 3]))
    assert sweep(planned(prepared(tmp_path, few)), out, in_process()).known == 0
    assert sweep(planned(prepared(tmp_path, more)), out, in_process()).known == 2
    assert len(all_rows(out)) == 3


def test_a_process_that_dies_loses_nothing(
    tmp_path: Path, undisturbed: list[tuple[object, ...]], plan: Plan
) -> None:
    before, killed = set(multiprocessing.active_children()), []

    def kill(_: str, share: float) -> None:
        if 0 < share < 1 and not killed:
            killed.append(min(set(multiprocessing.active_children()) - before, key=str))
            killed[0].kill()

    sweep(plan, tmp_path / "s.sqlite", processes(2), kill)
    assert killed
    assert all_rows(tmp_path / "s.sqlite") == undisturbed


def test_a_driver_that_is_killed_goes_on_and_leaves_nobody_behind(
    tmp_path: Path, undisturbed: list[tuple[object, ...]], plan: Plan
) -> None:
    out, script = tmp_path / "s.sqlite", tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(tmp_path / "sweep.yaml"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        children = [int(pid) for pid in driver.stdout.readline().split()]
        driver.send_signal(signal.SIGKILL)
    assert len(children) == 2
    with reading(out) as sql:
        (done,) = sql.execute("SELECT count(*) FROM scenarios WHERE status = 'done'").fetchone()
    assert 12 <= done < 24
    assert sweep(plan, out, in_process()).known == done
    assert all_rows(out) == undisturbed
    deadline = monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and monotonic() < deadline:
        sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


class _Deadly(ProcessPoolExecutor):
    """Its workers die of everything."""

    def submit(self, *_: object, **__: object) -> Future[object]:  # type: ignore[override]
        future: Future[object] = Future()
        future.set_exception(BrokenProcessPool("a process in the process pool was terminated"))
        return future


def test_workers_that_die_again_and_again_are_not_replaced_for_ever(
    tmp_path: Path, plan: Plan
) -> None:
    hired = []

    @contextmanager
    def hire(_: Inputs) -> Iterator[Crew]:
        hired.append(1)
        yield Crew(_Deadly(1), 1, 2, "the doomed")

    with pytest.raises(RunError, match="workers die of the 24 scenarios that are left; give them"):
        sweep(plan, tmp_path / "s.sqlite", hire)
    assert len(hired) == 1
    assert len(all_rows(tmp_path / "s.sqlite")) == 24
