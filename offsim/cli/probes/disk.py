"""Where blobs on disk would be, and the shared memory of processes that decode."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

from offsim.cli.probes.base import Found, Probe, fact, missing, works
from offsim.units import GB, show_bytes

MOUNTS = Path("/proc/mounts")
IN_MEMORY = ("tmpfs", "ramfs")


def probes(folder: Path | None) -> list[Probe]:
    """A row each.

    Args:
        folder: in which blobs would be; None for that of temporary files.
    """
    return [
        Probe("room for blobs", partial(room, folder)),
        Probe("reads past the page cache", partial(direct, folder)),
        Probe("shared memory", shared),
    ]


def room(folder: Path | None) -> Found:
    """How much is free, and on which kind of file system."""
    where = folder or Path(tempfile.gettempdir())
    if not where.is_dir():
        return missing(f"{where} is no folder", "make it, or choose another (--disk)")
    kind = file_system(where)
    use = shutil.disk_usage(where)
    here = f"{where}: {show_bytes(use.free)} free of {show_bytes(use.total)}"
    if kind in IN_MEMORY:
        return fact(f"{here}, {kind}", "choose a folder on a disk (--disk): this one is in memory")
    return fact(f"{here}, {kind}" if kind else here)


def direct(folder: Path | None) -> Found:
    """Whether reads come from the disk, and not from memory."""
    from offsim.runtime.disk import reads_directly

    if reads_directly(folder):
        return works("O_DIRECT")
    remedy = "choose a folder (--disk) whose file system has it, such as ext4 or xfs"
    return missing("no O_DIRECT there: the page cache is told to forget what was read", remedy)


def shared() -> Found:
    """Where payloads go to the processes that decode, and weights come back."""
    from offsim.codec.pool import SHARED

    if not SHARED.is_dir():
        return fact("the system has no limit of its own for it")
    free = shutil.disk_usage(SHARED).free
    if free < GB:
        return fact(f"{show_bytes(free)} free", "give it more for large experts (--shm-size)")
    return fact(f"{show_bytes(free)} free")


def file_system(folder: Path) -> str:
    """The kind of the file system that a folder is on, such as `ext4`; empty if nobody says."""
    if not MOUNTS.exists():
        return ""
    rows = [line.split() for line in MOUNTS.read_text(encoding="utf-8").splitlines()]
    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    on = [(len(place), kind) for _, place, kind, *_ in rows if place in above]
    # Of two on the same place the later one is on top.
    return max(reversed(on), key=lambda one: one[0])[1] if on else ""
