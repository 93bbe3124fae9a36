import os
import threading

import torch

from offsim.runtime.cores import cores
from offsim.runtime.threads import Worker, busy, single_compute_thread


def test_compute_and_workers_have_cores_of_their_own_where_there_are_two() -> None:
    compute, workers = cores()
    if len(os.sched_getaffinity(0)) > 1:
        assert len(compute) == 1
        assert not compute & workers
    else:
        assert compute == workers


def test_pinning_and_threads_are_undone() -> None:
    before = os.sched_getaffinity(0), torch.get_num_threads()
    with single_compute_thread():
        assert os.sched_getaffinity(0) == cores()[0]
        assert torch.get_num_threads() == 1
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_a_worker_leaves_the_core_of_compute_although_it_is_started_there() -> None:
    seen: list[set[int]] = []
    with single_compute_thread():
        worker = Worker("test", lambda *_: seen.append(os.sched_getaffinity(0)), lambda *_: None)
        worker.put("job")
        worker.stop()
    assert seen == [cores()[1]]


def test_a_worker_serves_in_order_reports_failures_and_ends() -> None:
    served: list[int] = []
    failed: list[tuple[int, str]] = []

    def serve(job: int, _: float) -> None:
        if job == 1:
            raise ValueError("no")
        served.append(job)

    worker = Worker("test", serve, lambda job, error: failed.append((job, str(error))))
    for job in range(4):
        worker.put(job)
    worker.stop()
    assert served == [0, 2, 3]
    assert failed == [(1, "no")]
    assert not worker.is_alive()


def test_being_busy_leaves_the_interpreter_to_others() -> None:
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1

    busy(1)
    thread = threading.Thread(target=count)
    thread.start()
    busy(20_000_000)
    seen = counted
    stop.set()
    thread.join()
    assert seen > 1000


def test_busy_work_is_not_optimised_away() -> None:
    assert busy(1) != busy(2)
