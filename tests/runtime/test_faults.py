"""What breaks ends the run within a second with one clear error, and leaves nothing behind."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from offsim.codec import codec_named
from offsim.errors import CodecError, RunError
from offsim.policy.policy import Policy
from offsim.runtime import ExpertStore, run_driven
from offsim.runtime.disk import Disk, blobs_on_disk
from offsim.runtime.host_decode import HostDecode
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.stages import Carry, DeviceDecode, HostCompute
from offsim.runtime.waiting import Job
from offsim.trace.cut import cut

from .test_disk import damage
from .test_driven import MODEL, TRACE, offsim_threads

SOON_S = 1.0
SHORT = cut(TRACE, tokens=3)
STORAGE = {"raw": 0.0, "cuszp": 2.0**-6, "sz3": 2.0**-6}
STORES = {
    name: ExpertStore.holding(MODEL, codec_named(name), bound) for name, bound in STORAGE.items()
}
ON_DISK = {"host_bytes": 0, "slots": 2}
STAGES: list[tuple[type[Any], str, str, dict[str, Any]]] = [
    (Disk, "disk", "raw", ON_DISK),
    (HostDecode, "host decode", "sz3", {}),
    (HostCompute, "host compute", "raw", {"host_tokens": 9}),
    (Carry, "link", "raw", {}),
    (DeviceDecode, "device decode", "cuszp", {"keep": "compressed"}),
]
EACH_STAGE = pytest.mark.parametrize(
    ("work", "stage", "codec", "placed"), STAGES, ids=[stage for _, stage, _, _ in STAGES]
)


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is brought before the run, so that what breaks does so while it runs."""
    monkeypatch.setattr(Pipeline, "warm_up", lambda *_: None)


@contextmanager
def ending_soon(folder: Path, says: str, *, threads: bool = False) -> Iterator[None]:
    """What is run here ends soon with an error that says this, and leaves nothing."""
    start = time.perf_counter()
    with pytest.raises(RunError, match=says):
        yield
    assert time.perf_counter() - start < SOON_S
    assert list(folder.iterdir()) == []
    if not threads:
        assert offsim_threads() == []


def run(folder: Path, codec: str, placed: dict[str, Any], pace: float | None = None) -> None:
    policy = Policy(codec=codec, bound=STORAGE[codec], **placed)
    run_driven(MODEL, STORES[codec], policy, SHORT, pace, folder=folder)


@pytest.fixture(autouse=True)
def _warm(tmp_path: Path) -> None:
    """What a process does once is not counted."""
    run(tmp_path, "raw", {"host_tokens": 1, **ON_DISK})
    run(tmp_path, "sz3", {})


def broken(monkeypatch: pytest.MonkeyPatch, work: type[Any], breaks: Callable[[], None]) -> None:
    """Let the third load of a stage break."""
    plain, served = work.serve, iter(range(10**9))

    def serve(self: Any, job: Job) -> bool:
        if next(served) == 2:
            breaks()
        done: bool = plain(self, job)
        return done

    monkeypatch.setattr(work, "serve", serve)


@EACH_STAGE
def test_a_load_that_fails_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    work: type[Any],
    stage: str,
    codec: str,
    placed: dict[str, Any],
) -> None:
    def fails() -> None:
        raise CodecError("the stream is cut")

    broken(monkeypatch, work, fails)
    says = r"loading expert \d of layer 0 failed: the stream is cut"
    with ending_soon(tmp_path, says):
        run(tmp_path, codec, placed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@EACH_STAGE
def test_a_thread_that_ends_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    work: type[Any],
    stage: str,
    codec: str,
    placed: dict[str, Any],
) -> None:
    def ends() -> None:
        raise SystemExit  # ends a thread without a word

    broken(monkeypatch, work, ends)
    says = rf"a thread of the stage {stage} ended over expert \d of layer 0; run it again"
    with ending_soon(tmp_path, says):
        run(tmp_path, codec, placed)


@EACH_STAGE
def test_a_thread_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    work: type[Any],
    stage: str,
    codec: str,
    placed: dict[str, Any],
) -> None:
    release = threading.Event()
    broken(monkeypatch, work, lambda: release.wait(30) and None)
    monkeypatch.setattr("offsim.runtime.pipeline.PATIENCE_S", 0.1)
    try:
        with ending_soon(tmp_path, r"no expert arrived within 0.1 s", threads=True):
            run(tmp_path, codec, placed)
        assert [name for name in offsim_threads() if name == f"offsim {stage}"]
    finally:
        release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("offsim "):
            thread.join(SOON_S)
    assert offsim_threads() == []


@pytest.mark.parametrize("prefetch", ["none", "last-token"])
@pytest.mark.parametrize("codec", ["raw", "cuszp", "sz3"])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("deleted", r"\.blob cannot be read \(No such file or directory\)"),
        ("flipped", r"\.blob is damaged: the checksum of \w+ does not hold"),
        ("cut", r"\.blob has \d+ of its \d+ bytes"),
    ],
)
def test_files_that_are_damaged_meanwhile_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: str,
    says: str,
    codec: str,
    prefetch: str,
) -> None:
    @contextmanager
    def damaged(store: ExpertStore, folder: Path) -> Iterator[Any]:
        with blobs_on_disk(store, folder) as files:
            for path in folder.rglob("*.blob"):
                damage(path, how)
            yield files

    decoded = []
    monkeypatch.setattr("offsim.runtime.run.blobs_on_disk", damaged)
    monkeypatch.setattr(HostDecode, "decode", lambda _, blob: decoded.append(blob))
    monkeypatch.setattr("offsim.runtime.devices.cpu.decode", decoded.append)
    with ending_soon(tmp_path, rf"loading expert \d of layer 0 failed: .*expert-\d\d\d{says}"):
        run(tmp_path, codec, {**ON_DISK, "prefetch": prefetch})
    assert decoded == [], "nothing was decoded whose checksum does not hold"


def test_what_waits_behind_a_failure_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails() -> None:
        raise CodecError("the stream is cut")

    carried, plain = [], Carry.serve

    def counted(self: Carry, job: Job) -> bool:
        carried.append(job)
        return plain(self, job)

    monkeypatch.setattr(Carry, "serve", counted)
    broken(monkeypatch, DeviceDecode, fails)
    asked = len(set(TRACE.experts[:3, 0].ravel().tolist()))
    with ending_soon(tmp_path, "the stream is cut"):
        run(tmp_path, "raw", {"slots": 0}, MODEL.shape.bytes / 0.08)
    assert 3 <= len(carried) < asked
