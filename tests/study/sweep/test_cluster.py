"""Dask: a scheduler and workers as others start them, one of which is killed in mid-sweep."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="needs the extra cluster (distributed)")

from offsim.errors import InputError
from offsim.study.sweep import cluster
from offsim.study.sweep.drive import sweep
from offsim.study.sweep.executors import in_process
from offsim.study.sweep.plan import planned

from .made import all_rows, prepared

SLOW = """
import time
from offsim.study.sweep import work

def slow(*parts, now=work.predict):
    time.sleep(0.1)
    return now(*parts)

work.predict = slow
"""
SCHEDULER = "distributed.cli.dask_scheduler"
WORKER = "distributed.cli.dask_worker"


def free_port() -> int:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        port: int = here.getsockname()[1]
        return port


@contextmanager
def started(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    code = f"from {module} import main; main()"
    command = [sys.executable, "-c", code, *arguments, "--no-dashboard"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    plan = planned(prepared(tmp_path))
    sweep(plan, tmp_path / "undisturbed.sqlite", in_process())
    address = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "slow.py").write_text(SLOW)
    alone = (address, "--nthreads", "1", "--no-nanny", "--preload", str(tmp_path / "slow.py"))
    killed = []
    with ExitStack() as stack:
        host, port = address.removeprefix("tcp://").split(":")
        stack.enter_context(started(SCHEDULER, "--host", host, "--port", port))
        workers = [stack.enter_context(started(WORKER, *alone)) for _ in range(2)]

        with cluster.Client(address) as client:
            client.wait_for_workers(2, timeout=60)

        def kill(_: str, share: float) -> None:
            if share > 0 and not killed:
                workers[0].kill()
                killed.append(share)

        done = sweep(plan, tmp_path / "s.sqlite", cluster.scheduler(address), kill)
        assert workers[1].poll() is None
    assert 0 < killed[0] <= 0.5
    assert done.known == 0
    assert all_rows(tmp_path / "s.sqlite") == all_rows(tmp_path / "undisturbed.sqlite")


def test_without_a_scheduler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.2)
    address = f"tcp://127.0.0.1:{free_port()}"
    plan = planned(prepared(tmp_path))
    with pytest.raises(InputError, match=f"--dask {address}: no scheduler answers there; start"):
        sweep(plan, tmp_path / "s.sqlite", cluster.scheduler(address))
    assert sweep(plan, tmp_path / "s.sqlite", in_process()).known == 0
