import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
import torch

from offsim.codec import Blob, decode, encode, pool
from offsim.codec.pool import DecodePool
from offsim.codec.raw import Raw
from offsim.codec.sz3 import Sz3
from offsim.errors import CodecError, InputError, RunError

from .checks import DTYPES, assert_same_bits, weights_like

FOREIGN = '''
import os, resource, signal, time
import torch
from offsim.codec import Codec

class Foreign(Codec):
    """A codec whose decode does what its option says."""

    name = "foreign"
    placement = "host"
    promise = "exact"

    def __init__(self, how="pid"):
        self.how = how

    def options(self):
        return {"how": self.how}

    def encode(self, weights, bound):
        return b""

    def decode(self, payload, shape, dtype, bound):
        if self.how == "crash":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "wrong":
            raise ValueError("a mistake")
        if self.how == "hang":
            time.sleep(600)
        time.sleep(0.05)
        return torch.full(shape, os.getpid(), dtype=dtype)
'''


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the import path, as workers get it too, with a package that has a codec."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "foreign_codec.py").write_text(FOREIGN)
    facts = folder / "foreign_codec-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-codec\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[offsim.codecs]\nforeign = foreign_codec:Foreign\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def two(foreign: Path) -> Iterator[DecodePool]:
    with DecodePool(2) as workers:
        yield workers


def blob_of(how: str, *shape: int) -> Blob:
    return Blob.of(
        b"",
        codec="foreign",
        options={"how": how},
        dtype="f32",
        shape=shape,
        bound=0.0,
        codec_bound=0.0,
    )


def changed(blob: Blob, payload: bytes | None = None, **fields: Any) -> Blob:
    header = blob.header.model_dump(exclude={"payload_bytes", "payload_crc32"}) | fields
    return Blob.of(blob.payload if payload is None else payload, **header)


def sz3_blobs(*sizes: int) -> list[Blob]:
    return [encode(weights_like(size, seed=size), Sz3(), 1e-3) for size in sizes]


def pids(decoder: DecodePool) -> list[int]:
    return [worker._process.pid or 0 for worker in decoder._workers]


def arenas(decoder: DecodePool) -> list[str]:
    return [arena.name for worker in decoder._workers for arena in worker._arenas if arena.name]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_decodes(decoder: DecodePool) -> None:
    blobs = sz3_blobs(10, 2000, 30)
    for blob, weights in zip(blobs, decoder.decode(blobs), strict=True):
        assert_same_bits(decode(blob), weights)


def test_tensors_come_back_in_order_as_decode_gives_them(two: DecodePool) -> None:
    blobs = [
        encode(weights_like(*shape, dtype=dtype, seed=len(shape)), codec, 1e-3)
        for shape in [(30, 20), (), (1,), (0,), (3, 0, 2), (200, 100), (2, 3, 1, 2, 2), (7,)]
        for dtype in DTYPES
        for codec in (Sz3(), Raw(), Sz3("INTERP"))
    ]
    weights = two.decode(blobs)
    assert len(weights) == len(blobs)
    for blob, back in zip(blobs, weights, strict=True):
        assert back.dtype == blob.torch_dtype
        assert back.shape == blob.header.shape
        assert torch.equal(back, decode(blob))


def test_any_buffer_is_a_payload(two: DecodePool) -> None:
    blob = sz3_blobs(500)[0]
    back = two.decode([Blob(blob.header, memoryview(bytearray(blob.payload)))])[0]
    assert_same_bits(decode(blob), back)


def test_no_blobs(two: DecodePool) -> None:
    assert two.decode([]) == []


def test_result_is_memory_of_its_own(two: DecodePool) -> None:
    blobs = sz3_blobs(1000)
    first = two.decode(blobs)[0]
    before = first.clone()
    two.decode([encode(torch.zeros(1000).bfloat16(), Raw())] * 8)
    assert torch.equal(first, before)
    first.zero_()


def test_every_worker_takes_part(two: DecodePool) -> None:
    two.decode(sz3_blobs(10))  # both may still be starting
    used = {int(weights[0]) for weights in two.decode([blob_of("pid", 1)] * 12)}
    assert len(used) == 2


def test_largest_are_handed_out_first(two: DecodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    take = pool._Worker.take

    def note(worker: pool._Worker, place: int, blobs: Sequence[Blob]) -> None:
        handed.append(sum(blob.count for blob in blobs))
        take(worker, place, blobs)

    monkeypatch.setattr(pool._Worker, "take", note)
    two.decode(sz3_blobs(30, 10, 2000, 20, 500))
    assert handed == [2000, 500, 30, 20, 10]
    handed.clear()
    two.decode(sz3_blobs(30, 10, 2000, 20, 500), together=2)
    assert handed == [2020, 500, 40]


@pytest.mark.parametrize("together", [2, 3, 99])
def test_neighbours_are_handed_over_together(two: DecodePool, together: int) -> None:
    blobs = [*sz3_blobs(1000, 1, 30), encode(weights_like(0), Raw()), *sz3_blobs(70, 500)]
    for blob, weights in zip(blobs, two.decode(blobs, together), strict=True):
        assert_same_bits(decode(blob), weights)
    blobs[4] = changed(blobs[4], b"no stream")
    with pytest.raises(CodecError, match="blob 4 of 6: sz3: not a stream"):
        two.decode(blobs, together)


def test_workers_and_arenas_are_used_again_until_it_is_closed(foreign: Path) -> None:
    with DecodePool(1) as one:
        one.decode(sz3_blobs(5000, 4000, 300))
        before = pids(one), arenas(one)
        one.decode(sz3_blobs(4000, 300, 3999))
        assert (pids(one), sorted(arenas(one))) == (before[0], sorted(before[1]))
        one.decode(sz3_blobs(50000))
        assert pids(one) == before[0]
        assert len(set(arenas(one)) - set(before[1])) == 1
        gone = (set(before[1]) - set(arenas(one))).pop()
        with pytest.raises(FileNotFoundError):
            SharedMemory(gone)
        one.decode(sz3_blobs(50000, 60000, 70000, 10))
        assert_decodes(one)
        workers, names = pids(one), arenas(one)
        assert len(names) == pool.ARENAS
    one.close()
    assert not any(map(is_running, workers))
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
    with pytest.raises(InputError, match="closed"):
        one.decode([])


def test_damaged_blob_is_named_and_the_pool_goes_on(two: DecodePool) -> None:
    blobs = sz3_blobs(500, 40, 600, 30)
    blobs[2] = changed(blobs[2], bytes(blobs[2].payload[:100]))
    before = pids(two)
    with pytest.raises(CodecError, match=r"blob 2 of 4: sz3: not a stream of \[600\] values"):
        two.decode(blobs)
    two.decode(sz3_blobs(90000, 80000, 70000, 60000))  # larger arenas than the failed one had
    assert_decodes(two)
    assert pids(two) == before


def test_first_of_several_failures_is_told(two: DecodePool) -> None:
    bad = changed(sz3_blobs(500)[0], b"no stream")
    with pytest.raises(CodecError, match="blob 0 of 2"):
        two.decode([bad, bad])


def test_unknown_codec_is_a_codec_error(two: DecodePool) -> None:
    with pytest.raises(CodecError, match="cannot be decoded here: no codec is called 'none'"):
        two.decode([changed(sz3_blobs(5)[0], codec="none")])


def test_mistake_of_a_foreign_codec_is_a_codec_error(two: DecodePool) -> None:
    with pytest.raises(CodecError, match="blob 1 of 2: ValueError: a mistake"):
        two.decode([*sz3_blobs(10), blob_of("wrong", 4)])
    assert_decodes(two)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 50, 1 << 20), (1 << 70,)], ids=str)
def test_shape_that_the_payload_does_not_have_takes_no_memory(
    two: DecodePool, shape: tuple[int, ...]
) -> None:
    with pytest.raises(CodecError, match="blob 0 of 1: no shared memory of"):
        two.decode([changed(sz3_blobs(12)[0], shape=shape)])
    assert_decodes(two)


def test_crash_is_a_codec_error_with_the_blob_and_the_worker_is_replaced(two: DecodePool) -> None:
    before = pids(two)
    with pytest.raises(CodecError, match=r"blob 1 of 3: the worker died .*SIGSEGV"):
        two.decode([*sz3_blobs(100), blob_of("crash", 200), *sz3_blobs(300)])
    assert_decodes(two)
    assert len(set(pids(two)) & set(before)) == 1


def test_worker_that_died_between_calls_is_replaced(two: DecodePool) -> None:
    victim = pids(two)[0]
    two._workers[0]._process.kill()
    two._workers[0]._process.join()
    assert_decodes(two)
    assert victim not in pids(two)


def test_threads_share_a_pool(two: DecodePool) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                assert_decodes(two)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_interrupted_call_ends_the_workers_and_the_next_gets_new_ones(
    two: DecodePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    before, names = pids(two), arenas(two)
    with monkeypatch.context() as patch:
        patch.setattr(pool.connection, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            two.decode([blob_of("hang", 4)] * 4)
    assert not any(map(is_running, before))
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
    assert_decodes(two)


def test_a_dead_worker_is_told_of(foreign: Path) -> None:
    with DecodePool(2) as decoder:
        assert decoder.is_alive()
        decoder._workers[1]._process.kill()
        decoder._workers[1]._process.join()
        assert not decoder.is_alive()
        assert_decodes(decoder)
        assert decoder.is_alive()
    assert not decoder.is_alive()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_workers_and_who_replaces_them_run_on_the_cores_that_were_asked_for() -> None:
    last = max(os.sched_getaffinity(0))
    with DecodePool(1, {last}) as decoder:
        for _ in range(2):
            assert_decodes(decoder)
            (pid,) = pids(decoder)
            assert os.sched_getaffinity(pid) == {last}
            os.kill(pid, signal.SIGKILL)
            decoder._workers[0]._process.join()


def test_pool_that_is_dropped_ends_its_workers() -> None:
    dropped = DecodePool(1)
    workers = pids(dropped)
    del dropped
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_refused(workers: int) -> None:
    with pytest.raises(InputError, match=f"of {workers} workers"):
        DecodePool(workers)


def test_worker_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_work", operator.is_)  # ends at once
    with (
        DecodePool(1) as broken,
        pytest.raises(RunError, match=r"did not start \(exit code 0\); run the program under"),
    ):
        broken.decode(sz3_blobs(10))


SCRIPT = """
import signal, sys, time
from offsim.codec import Blob
from offsim.codec.pool import DecodePool
from offsim.codec.raw import Raw
import torch
from offsim.codec import encode

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    pool = DecodePool(1)
    if sys.argv[1] != "starting":
        pool.decode([encode(torch.ones(1000), Raw())] * 8)
    workers = [str(worker._process.pid) for worker in pool._workers]
    names = [arena.name for worker in pool._workers for arena in worker._arenas if arena.name]
    print(",".join(workers), ",".join(names), flush=True)
    if sys.argv[1] == "hang":
        blob = Blob.of(b"", codec="foreign", options={"how": "hang"}, dtype="f32", shape=(4,),
                       bound=0.0, codec_bound=0.0)
        pool.decode([blob] * 5)
    elif sys.argv[1] == "starting":
        pool.decode([encode(torch.ones(1000), Raw())] * 8)
        time.sleep(600)
"""


@pytest.mark.parametrize("stage", ["hang", "starting", "end"])
def test_a_program_leaves_no_process_and_no_memory(
    stage: str, foreign: Path, tmp_path: Path
) -> None:
    """Whether Ctrl-C meets decoding or starting workers, or it ends without closing its pool."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(foreign), str(Path(pool.__file__).parents[2])])
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script), stage],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        workers, _, names = program.stdout.readline().strip().partition(" ")
        if stage != "end":
            time.sleep(0.2)
            os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all of the group
        _, errors = program.communicate(timeout=60)
    assert workers
    assert not any(is_running(int(pid)) for pid in workers.split(","))
    for name in filter(None, names.split(",")):
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
    if stage == "end":
        assert (program.returncode, errors) == (0, "")
    else:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert errors.count("Traceback") == 1
        assert "leaked" not in errors
        assert "Exception ignored" not in errors
