from pathlib import Path

import numpy as np
import pytest

from offsim.codec.layer_file import PAGE
from offsim.errors import InputError
from offsim.study.encoding import ROOM, Writer


def test_parts_are_written_one_after_the_other_at_their_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3 * PAGE)
    parts = [b"ab" * 1000, b"", memoryview(b"c" * (PAGE - 2000))]
    Writer().write(path, parts, PAGE)
    assert path.read_bytes() == b"x" * PAGE + b"".join(parts) + b"x" * PAGE


def test_parts_that_are_longer_than_what_is_written_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    data = np.random.default_rng(0).bytes(2 * ROOM + 3 * PAGE)
    writer = Writer()
    writer.write(path, [data[:100], data[100 : ROOM + 7], data[ROOM + 7 :]], 0)
    writer.write(path, [data[:PAGE]], PAGE)
    assert path.read_bytes() == data[:PAGE] + data[:PAGE] + data[2 * PAGE :]


def test_a_full_disk_is_one_sentence() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(InputError, match=r"No space left on device\); make room") as raised:
        Writer().write(full, [b"x" * PAGE], 0)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Writer().write(tmp_path / "gone", [b"x" * PAGE], 0)
    assert not (tmp_path / "gone").exists()
