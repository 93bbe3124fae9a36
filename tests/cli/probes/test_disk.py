import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from offsim.cli.probes import disk
from offsim.cli.probes.base import Group, examine
from offsim.codec import pool
from offsim.runtime import disk as blobs

Usage = namedtuple("Usage", "total used free")


def test_room_names_folder_and_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    inner = tmp_path / "inner"
    inner.mkdir()
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} xfs rw 0 0\nc {inner} tmpfs rw 0 0\n")
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    assert disk.file_system(Path("/")) == "ext4"
    assert disk.file_system(tmp_path / "other") == "xfs"
    assert disk.room(tmp_path).here.startswith(f"{tmp_path}: ")
    assert disk.room(tmp_path).here.endswith(", xfs")
    assert disk.room(tmp_path).remedy == ""
    assert "in memory" in disk.room(inner).remedy
    mounts.write_text(f"b {tmp_path} xfs rw 0 0\nc {tmp_path} tmpfs rw 0 0\n")
    assert disk.file_system(tmp_path) == "tmpfs"  # the one on top
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "none")
    assert disk.file_system(tmp_path) == ""


def test_direct_reads_are_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = disk.direct(tmp_path)
    assert found.state == ("works" if blobs.reads_directly(tmp_path) else "missing")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(blobs, "_DIRECT", 0)
    found = disk.direct(tmp_path)
    assert found.state == "missing"
    assert "--disk" in found.remedy


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    rows = examine([Group("disk", lambda: disk.probes(tmp_path / "none")[:2])])
    assert [row.found.state for row in rows] == ["missing", "missing"]
    assert all(str(tmp_path / "none") in row.found.here and row.found.remedy for row in rows)


@pytest.mark.parametrize(("free", "has_remedy"), [(64_000_000, True), (8_000_000_000, False)])
def test_little_shared_memory_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, has_remedy: bool
) -> None:
    monkeypatch.setattr(pool, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    assert bool(disk.shared().remedy) == has_remedy
    monkeypatch.setattr(pool, "SHARED", tmp_path / "none")
    assert "no limit" in disk.shared().here
