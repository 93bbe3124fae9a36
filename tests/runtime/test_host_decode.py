"""Blobs are decoded in processes, which are kept from run to run and missed when they die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch

import offsim
from offsim.codec import codec_named
from offsim.codec.pool import DecodePool, _Worker
from offsim.errors import CodecError, RunError
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.runtime import ExpertStore, run_driven
from offsim.runtime import host_decode as module
from offsim.runtime.cores import cores
from offsim.runtime.host_decode import HostDecode
from offsim.runtime.waiting import Job
from offsim.trace.cut import cut

from .test_driven import MODEL, TRACE, check, offsim_threads

BOUND = 2.0**-6
STORE = ExpertStore.holding(MODEL, codec_named("sz3"), BOUND)
SHORT = cut(TRACE, tokens=3)
SOON_S = 1.0
LONG_S = 30.0


@pytest.fixture
def host() -> Iterator[HostDecode]:
    with closing(HostDecode(1, STORE)) as decoder:
        yield decoder


def worker_of(host: HostDecode) -> _Worker:
    """The process of one that has nothing to decode now."""
    pool = host._idle.get_nowait()
    host._idle.put(pool)
    return pool._workers[0]


def pid_of(host: HostDecode) -> int:
    return worker_of(host)._process.pid or 0


def test_weights_are_those_of_the_blobs(host: HostDecode) -> None:
    for blob in STORE.blobs[0]:
        weights = host.decode(blob)
        assert all(map(torch.equal, weights, [blob.decoded(matrix) for matrix in range(3)]))
        assert [w.dtype for w in weights] == [torch.bfloat16] * 3


def test_a_process_decodes_and_not_this_one(host: HostDecode) -> None:
    """It is halted, and this one goes on, but nothing is decoded until it may go on too."""
    done = threading.Event()

    def decode() -> None:
        host.decode(STORE.blobs[0][0])
        done.set()

    pid = pid_of(host)
    os.kill(pid, signal.SIGSTOP)
    thread = threading.Thread(target=decode)
    thread.start()
    assert not done.wait(0.05)
    os.kill(pid, signal.SIGCONT)
    assert done.wait(LONG_S)
    thread.join()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_it_runs_on_the_cores_of_the_workers(host: HostDecode) -> None:
    assert os.sched_getaffinity(pid_of(host)) == cores()[1]


def test_its_memory_does_not_grow_during_a_run(host: HostDecode) -> None:
    before = {arena.name for arena in worker_of(host)._arenas}
    for row in STORE.blobs:
        for blob in row:
            host.decode(blob)
    assert {arena.name for arena in worker_of(host)._arenas} == before


def test_processes_are_kept_from_run_to_run(
    host: HostDecode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_reserve", SimpleQueue())
    before = pid_of(host)
    host.close()
    again = HostDecode(1, STORE)
    assert pid_of(again) == before
    assert again.decode(STORE.blobs[0][0])


def test_those_that_died_meanwhile_are_not_taken(
    host: HostDecode, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = DecodePool(1), host._idle.get_nowait()
    dead.close()
    monkeypatch.setattr(module, "_reserve", SimpleQueue())
    module._reserve.put(dead)
    module._reserve.put(alive)
    assert module._taken() is alive
    host._idle.put(alive)


def test_a_codec_that_the_process_does_not_have_is_told_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise CodecError("blob 0 of 4: no codec is called 'own'")

    monkeypatch.setattr(DecodePool, "decode", refuses)
    with pytest.raises(RunError, match=r"codec sz3 cannot decode in a process: .* is called 'own'"):
        HostDecode(1, STORE)


def test_several_decode_for_real_and_decide_the_same() -> None:
    run = check(STORE, Policy(codec="sz3", bound=BOUND, slots=2, transfer=Transfer(decoders=2)))
    stages = {span.stage for step in run.record.steps for load in step.loads for span in load.spans}
    assert "host decode" in stages


def assert_gone(names: list[str]) -> None:
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def killed(worker: _Worker) -> None:
    worker._process.kill()
    worker._process.join()


def halted_and_killed(worker: _Worker) -> None:
    """It gets a load, does not answer, and dies."""
    os.kill(worker._process.pid or 0, signal.SIGSTOP)
    threading.Timer(0.1, worker._process.kill).start()


@pytest.mark.parametrize(
    ("dies", "says"),
    [
        (killed, "the process that decodes had ended; run it again"),
        (halted_and_killed, r"blob 0 of 3: the worker died over it \(signal SIGKILL\)"),
    ],
)
def test_a_process_that_dies_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, dies: Callable[[_Worker], None], says: str
) -> None:
    policy = Policy(codec="sz3", bound=BOUND)
    run_driven(MODEL, STORE, policy, SHORT)  # starts a process, which takes its time
    plain, served = HostDecode.serve, iter(range(10**9))
    died: list[int | None] = []
    names: list[str] = []

    def serve(self: HostDecode, job: Job) -> bool:
        if next(served) == 2:
            worker = worker_of(self)
            names.extend(arena.name for arena in worker._arenas)
            died.append(worker._process.pid)
            dies(worker)
        return plain(self, job)

    before = len(multiprocessing.active_children())
    monkeypatch.setattr(HostDecode, "serve", serve)
    start = time.perf_counter()
    with pytest.raises(RunError, match=rf"^loading expert \d of layer 0 failed: {says}$"):
        run_driven(MODEL, STORE, policy, SHORT)
    assert time.perf_counter() - start < SOON_S
    assert offsim_threads() == []
    left = multiprocessing.active_children()
    assert len(left) <= before
    assert died[0] not in [process.pid for process in left]
    assert_gone(names)
    monkeypatch.undo()
    run_driven(MODEL, STORE, policy, SHORT)


SCRIPT = """
import gc, signal
from offsim.codec import codec_named
from offsim.codec.pool import DecodePool
from offsim.policy.policy import Policy
from offsim.runtime import ExpertStore, run_driven
from tests.runtime.test_driven import MODEL, routing

told = []

def tell():
    if not told:
        told.append(True)
        (pool,) = (one for one in gc.get_objects() if type(one) is DecodePool)
        (worker,) = pool._workers
        print(worker._process.pid, *(arena.name for arena in worker._arenas), flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    store = ExpertStore.holding(MODEL, codec_named("sz3"), 2.0**-6)
    run_driven(MODEL, store, Policy(codec="sz3", bound=2.0**-6), routing(99), 1e5, tell)
"""


def test_an_interrupted_run_leaves_no_process_and_no_memory(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(offsim.__file__).parents[1])},
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        pid, *names = program.stdout.readline().split()
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all of the group
        _, errors = program.communicate(timeout=60)
    assert names
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert_gone(names)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
    assert "leaked" not in errors


def test_a_program_without_a_main_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
from offsim.codec import codec_named
from offsim.policy.policy import Policy
from offsim.runtime import ExpertStore, run_driven
from tests.runtime.test_driven import MODEL, TRACE

store = ExpertStore.holding(MODEL, codec_named("sz3"), 2.0**-6)
run_driven(MODEL, store, Policy(codec="sz3", bound=2.0**-6), TRACE)
"""
    )
    path = {**os.environ, "PYTHONPATH": str(Path(offsim.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script)],
        check=False,
        capture_output=True,
        text=True,
        env=path,
        timeout=60,
    )
    assert done.returncode == 1
    assert "a decode worker did not start (exit code 1); run the program under if __name__" in (
        done.stderr
    )
