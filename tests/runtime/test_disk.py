"""Blobs in files, and which of them are in memory."""

import os
from pathlib import Path
from typing import Any

import pytest

from offsim.codec import codec_named
from offsim.codec.expert import ExpertBlob
from offsim.errors import InputError, RunError
from offsim.policy.cache import Decision
from offsim.policy.decider import live_decider
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.policy.policy import Policy
from offsim.policy.tiers import Sizes
from offsim.runtime import disk as module
from offsim.runtime.disk import ALIGNMENT, SECTOR, BlobFiles, Shelf, blobs_on_disk
from offsim.runtime.store import ExpertStore
from offsim.testbed.generated import generated_model
from offsim.trace import DECODE

MODEL = generated_model((2, 3, 40, 24), distinct=4, sigma=0.1)


@pytest.fixture(scope="module")
def store() -> ExpertStore:
    return ExpertStore.holding(MODEL, codec_named("cuszp:mode=outlier"), 2.0**-7)


@pytest.fixture(scope="module")
def alone() -> ExpertStore:
    """Two experts, each with a file of its own."""
    model = generated_model((1, 2, 40, 24), distinct=2, sigma=0.1)
    return ExpertStore.holding(model, codec_named("cuszp"), 2.0**-7)


def payloads(blob: ExpertBlob) -> list[bytes]:
    return [bytes(part.payload) for part in blob.blobs]


@pytest.mark.parametrize("direct", [True, False])
def test_what_is_read_is_what_was_written(
    store: ExpertStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(module, "_DIRECT", 0)
    files = BlobFiles(store, tmp_path)
    assert files.direct <= direct
    assert ("past the page cache (O_DIRECT)" in str(files)) == files.direct
    assert ("no O_DIRECT there" in str(files)) != files.direct
    for layer, row in enumerate(store.blobs):
        for expert, blob in enumerate(row):
            read = files.read((layer, expert))
            assert payloads(read) == payloads(blob)
            assert [part.header for part in read.blobs] == [part.header for part in blob.blobs]


def test_a_file_system_without_direct_reads_is_noticed(
    store: ExpertStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.preadv

    def refused(handle: int, *arguments: Any) -> int:
        if os.get_blocking(handle) and direct_flags(handle):
            raise OSError(22, "Invalid argument")
        return plain(handle, *arguments)

    monkeypatch.setattr(os, "preadv", refused)
    files = BlobFiles(store, tmp_path)
    assert not files.direct
    assert payloads(files.read((1, 2))) == payloads(store.blobs[1][2])


def direct_flags(handle: int) -> bool:
    fcntl = pytest.importorskip("fcntl")
    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


def test_experts_that_share_a_blob_share_a_file(store: ExpertStore, tmp_path: Path) -> None:
    BlobFiles(store, tmp_path)
    distinct = {id(blob): blob for row in store.blobs for blob in row}
    found = sorted(tmp_path.iterdir())
    assert len(found) == len(distinct) < 6
    assert found[0].name == "layer-000-expert-000.blob"
    data, first = found[0].read_bytes(), store.blobs[0][0]
    at = 0
    for payload in payloads(first):
        assert data[at : at + len(payload)] == payload
        at += -(-len(payload) // ALIGNMENT) * ALIGNMENT
    assert len(data) == at


def test_large_and_small_files_end_where_they_should(tmp_path: Path) -> None:
    for hidden in (8, 64, 128):  # 384 B; 3 sectors to the byte; more than that
        model = generated_model((1, 1, hidden, 32), sigma=0.1)
        store = ExpertStore.holding(model, codec_named("raw"), 0.0)
        assert (store.shape.bytes % SECTOR == 0) == (hidden > 8)
        with blobs_on_disk(store, tmp_path) as files:
            assert payloads(files.read((0, 0))) == payloads(store.blobs[0][0])
    assert list(tmp_path.iterdir()) == []


def damage(path: Path, how: str) -> None:
    if how == "deleted":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"cut": len(data) - 1, "emptied": 0}.get(how, len(data))])


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("deleted", r"layer-000-expert-001.blob cannot be read \(No such file"),
        ("flipped", r"layer-000-expert-001.blob is damaged: the checksum of up does not hold"),
        ("cut", r"layer-000-expert-001.blob has \d+ of its \d+ bytes"),
        ("emptied", r"layer-000-expert-001.blob has 0 of its \d+ bytes"),
    ],
)
def test_a_damaged_file_is_named(
    alone: ExpertStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    how: str,
    says: str,
) -> None:
    if not direct:
        monkeypatch.setattr(module, "_DIRECT", 0)
    files = BlobFiles(alone, tmp_path)
    damage(tmp_path / "layer-000-expert-001.blob", how)
    with pytest.raises(RunError, match=says):
        files.read((0, 1))


def test_a_file_that_ends_within_its_sectors_is_cut(tmp_path: Path) -> None:
    store = ExpertStore.holding(generated_model((1, 1, 64, 32)), codec_named("raw"), 0.0)
    files = BlobFiles(store, tmp_path)
    path = tmp_path / "layer-000-expert-000.blob"
    path.write_bytes(path.read_bytes()[: 2 * SECTOR])
    with pytest.raises(RunError, match=f"has {2 * SECTOR} of its {3 * SECTOR} bytes"):
        files.read((0, 0))


def test_the_folder_is_removed_whatever_happens(store: ExpertStore, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stopped() -> None:
        with blobs_on_disk(store, tmp_path):
            assert len(list(tmp_path.rglob("*.blob"))) > 0
            raise StoppedError

    with pytest.raises(StoppedError):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_nothing(
    store: ExpertStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written .No space left on device.; choose"):
        blobs_on_disk(store, tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


class Bench:
    """A shelf of raw blobs, of which two fit in host memory: at first those of experts 0 and 1."""

    def __init__(self, folder: Path, blobs: int = 2) -> None:
        self.store = ExpertStore.holding(MODEL, codec_named("raw"), 0.0)
        nbytes = self.store.shape.bytes
        policy = Policy(slots=0, host_bytes=blobs * nbytes)
        sizes = Sizes(lambda _: nbytes, nbytes)
        self.decider = live_decider(policy, (2, 3, 2), lambda _: nbytes, None, sizes)
        self.shelf = Shelf(self.store, BlobFiles(self.store, folder), self.decider)

    def ask(self, layer: int, *experts: int) -> Decision:
        decision = self.decider.decide(Lookup(layer, DECODE, list(experts), [0.5] * len(experts)))
        self.shelf.decided(decision)
        return decision

    def there(self) -> list[Key]:
        keys = [(layer, expert) for layer in range(2) for expert in range(3)]
        return [key for key in keys if self.shelf.take(key) is not None]


def test_a_blob_is_there_from_its_read_until_it_is_decided_to_leave(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.there() == [(0, 0), (0, 1)]
    assert bench.ask(0, 2).from_disk == ((0, 2),)
    assert bench.there() == [(0, 1)], "2 is to come, and 0 has left for it"
    read = bench.shelf.read((0, 2))
    assert bench.shelf.take((0, 2)) is read
    assert bench.ask(0, 1, 2).from_disk == ()
    assert bench.there() == [(0, 1), (0, 2)]


def test_what_leaves_in_the_decision_that_loads_it_is_still_there_for_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, blobs=1)
    assert bench.ask(0, 0, 1).from_disk == ((0, 1),)
    assert bench.shelf.take((0, 0)) is bench.store.blobs[0][0]
    assert bench.shelf.take((0, 0)) is None
    assert bench.shelf.take((0, 1)) is None
    assert bench.shelf.read((0, 1)) is bench.shelf.take((0, 1))


def test_what_is_read_after_it_left_or_passes_through_is_not_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, blobs=1)
    bench.ask(0, 2)
    bench.ask(0, 1)
    bench.shelf.read((0, 2))
    assert bench.there() == []
    bench.shelf.read((0, 1))
    assert bench.there() == [(0, 1)]
    nothing = Bench(tmp_path, blobs=0)
    assert nothing.ask(0, 2).from_disk == ((0, 2),)
    nothing.shelf.read((0, 2))
    assert nothing.there() == []
