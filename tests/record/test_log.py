from pathlib import Path

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.record.log import RunLog, read_log

TEXT = """step,wall_ms,compute_ms,stall_ms,mgmt_ms,read_bytes,hits,cache_hit_pct,more
1,10,6,3,1,2000,3,25.0,x
2,8,6,1.5,0.5,1000,4,37.5,y
# summary tokens=2
3,6,6,0,0,0,5,50,z
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "run.csv"
    path.write_text(text)
    return path


def test_columns_go_by_name_and_unit(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, TEXT))
    assert (log.name, log.tokens) == ("run.csv", 3)
    np.testing.assert_allclose(log.wall_s, [0.01, 0.008, 0.006])
    assert log.compute_s is not None
    assert log.stall_s is not None
    assert log.read_bytes is not None
    assert log.hit_share is not None
    np.testing.assert_allclose(log.stall_s, [0.003, 0.0015, 0])
    assert log.read_bytes.tolist() == [2000, 1000, 0]
    np.testing.assert_allclose(log.hit_share, [0.25, 0.375, 0.5])
    assert log.io_s is None
    assert log.waited_s is log.stall_s
    assert log.computed_s is log.compute_s


def test_other_names_and_units(tmp_path: Path) -> None:
    text = "\ufeff# offsim-run-log v1\n token , latency\n7,0.5\n8,0.25\n\n"
    log = read_log(written(tmp_path, text), {"step": "token", "wall_s": "latency"})
    assert log.wall_s.tolist() == [0.5, 0.25]
    assert log.waited_s is None
    assert log.computed_s is None
    log = read_log(written(tmp_path, "step,wall_us\n0,4\n1,2\n"))
    np.testing.assert_allclose(log.wall_s, [4e-6, 2e-6])


def test_a_column_can_be_left_out_and_an_unknown_share_is_none(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, TEXT), {"stall_ms": "", "hits": ""})
    assert log.stall_s is None
    assert log.hits is None
    assert log.waited_s is not None
    np.testing.assert_allclose(log.waited_s, [0.003, 0.0015, 0])  # what the rest leaves
    assert read_log(written(tmp_path, TEXT.replace("25.0", "-1"))).hit_share is None


def test_what_was_waited_where_nothing_overlaps() -> None:
    wall, io = np.array([5.0, 4.0]), np.array([2.0, 1.0])
    log = RunLog("x", wall, io_s=io, mgmt_s=np.ones(2))
    assert log.waited_s is io
    assert log.computed_s is not None
    assert log.computed_s.tolist() == [2, 2]
    assert RunLog("x", wall, io_s=io, stall_s=np.zeros(2)).waited_s is io
    without = RunLog("x", wall, stall_s=np.zeros(2))
    assert without.waited_s is without.stall_s
    overlapped = RunLog("x", wall, io_s=2 * wall, compute_s=wall - 1)
    assert overlapped.waited_s is not None
    assert overlapped.waited_s.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("2,8,6", "2,fast,6", "run.csv:3: wall_ms is 'fast', not a number of ms above 0"),
        ("2,8,6", "2,0,6", "wall_ms is '0', not a number of ms above 0; correct the row"),
        ("2,8,6", "2,8,-6", "compute_ms is '-6', not a number of ms from 0 on; correct it, or"),
        ("2,8,6", "2,inf,6", "wall_ms is 'inf'"),
        ("2,8,6", "2,nan,6", "wall_ms is 'nan'"),
        ("2,8,6", "2.5,8,6", "run.csv:3: step is '2.5', not a whole number"),
        ("2,8,6", "3,8,6", "run.csv:3: step 3 comes after 1; a log has every token once"),
        (",1000,", ",1.5,", "read_bytes is '1.5'"),
        (",37.5,", ",101,", "cache_hit_pct is '101', not 0 to 100"),
        (",37.5,y", "", "run.csv:3: 7 columns, not 9; is the file cut?"),
        ("2,8,6", "2,8,7", "run.csv:3: compute, waiting and managing take 9 ms of a token of 8"),
        ("wall_ms", "wall", "run.csv:1: there is no column wall_ms; name the one that it is"),
        ("step", "n", "there is no column step; name the one that it is with --column step=NAME"),
        ("mgmt_ms", "stall_s", "stall_s and stall_ms say the same; leave one out"),
        (TEXT, "", "no row follows"),
        (TEXT, "step,wall_ms\n", "no row follows"),
        ("step,", "# offsim-run-log v2\nstep,", "run.csv:1: version 2 of the log is not known"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_log(written(tmp_path, TEXT.replace(old, new)))
    assert says in str(caught.value).replace(f"{tmp_path}/", "")


def test_names_that_cannot_be(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    with pytest.raises(InputError, match="a log has no column 'speed'; there are step"):
        read_log(path, {"speed": "x"})
    with pytest.raises(FormatError, match="there is no column 'x', to be io_ms; it has step"):
        read_log(path, {"io_ms": "x"})
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path / "none.csv")
