"""Disk beneath host memory: blobs in files, and which of them are in memory.

A run writes every blob into a folder of its own, one file an expert, which is removed when the run
ends. A file has the payloads of gate, up and down, each at the next multiple of 64 bytes, and
nothing else; headers stay in memory. Experts that share a blob share its file.
"""

import mmap
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from offsim.codec import Blob
from offsim.codec.expert import ExpertBlob
from offsim.errors import InputError, RunError
from offsim.files import replacing
from offsim.model.experts import MATRICES
from offsim.policy.cache import Decision
from offsim.policy.decider import Decider
from offsim.policy.evictions import Key
from offsim.record.events import Stage
from offsim.runtime.store import ExpertStore
from offsim.runtime.waiting import Job

SECTOR = 4096
"""Bytes to whose multiples the sizes of reads past the page cache are rounded."""
ALIGNMENT = 64
"""Bytes to whose multiples the places of payloads in a file are rounded."""
_DIRECT = getattr(os, "O_DIRECT", 0)


@dataclass(frozen=True, slots=True)
class _File:
    """Where an expert is.

    Attributes:
        path: of its file.
        blob: headers, and payloads of no bytes.
        starts: [matrices + 1] where each payload begins, and where the file ends, bytes.
    """

    path: Path
    blob: ExpertBlob
    starts: list[int]


class BlobFiles:
    """The blobs of a store as files.

    Args:
        store: all of whose blobs are written.
        folder: that is there and is theirs alone.

    Attributes:
        direct: whether reads go past the page cache; else it is told to forget what was read.

    Raises:
        InputError: a file cannot be written.
    """

    def __init__(self, store: ExpertStore, folder: Path) -> None:
        self._files: dict[Key, _File] = {}
        written: dict[int, _File] = {}
        for layer, row in enumerate(store.blobs):
            for expert, blob in enumerate(row):
                if id(blob) not in written:
                    path = folder / f"layer-{layer:03}-expert-{expert:03}.blob"
                    written[id(blob)] = _write(path, blob)
                self._files[layer, expert] = written[id(blob)]
        self.direct = _opens_directly(self._files[0, 0].path)

    def read(self, key: Key) -> ExpertBlob:
        """Read the blob of an expert, and see that every checksum holds.

        Raises:
            RunError: the file cannot be read, is too short or is damaged.
        """
        file = self._files[key]
        try:
            data = self._bytes(file)
        except OSError as error:
            raise RunError(f"{file.path} cannot be read ({error.strerror})") from error
        if len(data) < file.starts[-1]:
            raise RunError(f"{file.path} has {len(data)} of its {file.starts[-1]} bytes")
        blobs = []
        for name, start, blob in zip(MATRICES, file.starts, file.blob.blobs, strict=False):
            payload = data[start : start + blob.header.payload_bytes]
            if zlib.crc32(payload) != blob.header.payload_crc32:
                raise RunError(f"{file.path} is damaged: the checksum of {name} does not hold")
            blobs.append(Blob(blob.header, payload))
        return ExpertBlob(tuple(blobs))

    def __str__(self) -> str:
        how = "past the page cache (O_DIRECT)"
        if not self.direct:
            how = "through the page cache, which forgets them again (no O_DIRECT there)"
        return f"blobs are read from {self._files[0, 0].path.parent} {how}"

    def _bytes(self, file: _File) -> memoryview:
        """What is in a file, or less of it where it is shorter than it was."""
        nbytes = file.starts[-1]
        # Mapped memory begins at a page, as reads past the page cache want it.
        room = mmap.mmap(-1, max(SECTOR, -(-nbytes // SECTOR) * SECTOR))
        handle = os.open(file.path, os.O_RDONLY | (_DIRECT if self.direct else 0))
        try:
            done = 0
            while done < nbytes and done % SECTOR == 0:  # what ends within a sector is the end
                count = os.preadv(handle, [memoryview(room)[done:]], done)
                if not count:
                    break
                done += count
            if not self.direct:
                _forget(handle)
        finally:
            os.close(handle)
        return memoryview(room)[: min(done, nbytes)]


def _write(path: Path, blob: ExpertBlob) -> _File:
    """Write the payloads of an expert, whole or not at all, and onto the disk."""
    sizes = [-(-len(part.payload) // ALIGNMENT) * ALIGNMENT for part in blob.blobs]
    with replacing(path) as partial, partial.open("wb") as file:
        for size, part in zip(sizes, blob.blobs, strict=True):
            file.write(bytes(part.payload).ljust(size, b"\0"))
        file.flush()
        os.fsync(file.fileno())
        _forget(file.fileno())
    headers = ExpertBlob(tuple(Blob(part.header, b"") for part in blob.blobs))
    return _File(path, headers, list(accumulate(sizes, initial=0)))


def _forget(handle: int) -> None:
    """Let the page cache forget a file, where the system can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _opens_directly(path: Path) -> bool:
    """Whether the file system lets this file be read past the page cache."""
    if not _DIRECT:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | _DIRECT)
    except OSError:
        return False
    try:
        os.preadv(handle, [mmap.mmap(-1, SECTOR)], 0)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


class Shelf:
    """The blobs that are in host memory.

    Which ones is decided by `offsim.policy.tiers.HostMemory`; here are their bytes. A blob is in
    memory from its read on, and so later than it is decided to be. Where a prefetch is given up
    before its blob was read, the next load of it finds it missing and reads it after all.

    Args:
        store: the experts.
        files: all of them.
        decider: whose host memory decides.
    """

    def __init__(self, store: ExpertStore, files: BlobFiles, decider: Decider) -> None:
        self._files, self._decider = files, decider
        self._lock = threading.Lock()
        self._held: dict[Key, ExpertBlob | None] = {  # None: decided to be there, and not yet read
            (layer, expert): blob
            for layer, row in enumerate(store.blobs)
            for expert, blob in enumerate(row)
            if self._stays((layer, expert))
        }
        self._granted: dict[Key, ExpertBlob] = {}

    def decided(self, decision: Decision) -> None:
        """Follow the last decision: keep what it loads, and let go of what left."""
        disk = set(decision.from_disk)
        keys = [*((decision.layer, expert) for expert in decision.misses), *decision.fetched]
        with self._lock:
            # Whoever is loaded now may have left for another load of the same decision.
            found = ((key, self._held.get(key)) for key in keys if key not in disk)
            self._granted = {key: blob for key, blob in found if blob is not None}
            for key in self._decider.left:
                if not self._stays(key):
                    self._held.pop(key, None)
            for key in disk:
                if self._stays(key):
                    self._held.setdefault(key, None)

    def take(self, key: Key) -> ExpertBlob | None:
        """The blob of an expert that the last decision loads, or None where it is to be read."""
        with self._lock:
            return self._granted.pop(key, None) or self._held.get(key)

    def read(self, key: Key) -> ExpertBlob:
        """Read a blob from disk; it is in memory from now on if it still has its place there.

        Raises:
            RunError: as for `BlobFiles.read`.
        """
        blob = self._files.read(key)
        with self._lock:
            if key in self._held:
                self._held[key] = blob
        return blob

    def _stays(self, key: Key) -> bool:
        host = self._decider.host
        return host is not None and key in host


class Disk:
    """Reads the blobs that host memory lacks, one at a time.

    Args:
        shelf: that they go to.
    """

    stage: Stage = "disk"
    threads = 1
    sleeps = True

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def serve(self, job: Job) -> bool:
        """Read the blob of a load."""
        job.blob = self._shelf.read((job.load.layer, job.load.expert))
        return True


@contextmanager
def blobs_on_disk(store: ExpertStore, folder: Path | None) -> Iterator[BlobFiles]:
    """The blobs of a store in a folder that is removed when the block ends.

    Args:
        store: the experts.
        folder: in which theirs is made; None for that of temporary files.

    Raises:
        InputError: nothing can be written there.
    """
    with _folder_in(folder) as name:
        yield BlobFiles(store, Path(name))


def reads_directly(folder: Path | None = None) -> bool:
    """Whether blobs in a folder are read past the page cache, by a try.

    Args:
        folder: in which blobs would be; None for that of temporary files.

    Raises:
        InputError: nothing can be written there.
    """
    with _folder_in(folder) as name:
        path = Path(name) / "sector"
        with replacing(path) as partial:
            partial.write_bytes(bytes(SECTOR))
        return _opens_directly(path)


def _folder_in(folder: Path | None) -> "tempfile.TemporaryDirectory[str]":
    """A folder of its own in this one, or in that of temporary files.

    Raises:
        InputError: nothing can be written there.
    """
    try:
        return tempfile.TemporaryDirectory(prefix="offsim-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"{folder or tempfile.gettempdir()}: no folder for blobs can be made there "
            f"({error.strerror}); choose another"
        ) from error
