import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from offsim.errors import FormatError, InputError
from offsim.trace import Trace, load_trace, save_trace
from offsim.trace.recorder import record, record_into
from offsim.trace.stream import Rows, TraceStream, streaming

from .traces import INFO, small_trace


def cut(trace: Trace, borders: list[int]) -> list[Rows]:
    """The rows of a trace in parts that end before each border, and the rest."""
    ends = [*sorted(set(borders)), trace.tokens]
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in trace.arrays().items()}
        for start, end in zip(starts, ends, strict=True)
    ]


@given(borders=st.lists(st.integers(1, 5), max_size=5), part_tokens=st.integers(1, 8))
def test_a_streamed_trace_is_the_file_of_a_saved_one(
    tmp_path_factory: pytest.TempPathFactory, borders: list[int], part_tokens: int
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    trace = small_trace()
    save_trace(trace, folder / "saved")
    with streaming(INFO, folder / "streamed", part_tokens) as stream:
        for rows in cut(trace, borders):
            stream.add(rows)
    assert (stream.tokens, stream.requests) == (6, 2)
    assert (folder / "streamed").read_bytes() == (folder / "saved").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"saved", "streamed"}


def test_a_recording_is_streamed_as_it_is_made(tiny_model: PreTrainedModel, tmp_path: Path) -> None:
    prompts, count = [[5, 6, 7], [9, 10]], 6
    whole, expected = record(tiny_model, prompts, count, INFO, lookahead=2)
    save_trace(whole, tmp_path / "whole")
    held: list[int] = []
    with streaming(INFO, tmp_path / "t", part_tokens=4) as stream:

        def add(rows: Rows) -> None:
            stream.add(rows)
            held.append(stream._rows)

        assert record_into(add, tiny_model, prompts, count, lookahead=2) == expected
    assert max(held) < 4, "more was in memory than a part"
    assert (tmp_path / "t").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    rows = cut(small_trace(), [])[0]
    with pytest.raises(KeyError), streaming(INFO, tmp_path / "t", 1) as stream:
        stream.add({"experts": rows["experts"], "no such array": rows["phase"]})
    assert not any(tmp_path.iterdir())


def test_what_was_there_stays_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("before")
    with streaming(INFO, tmp_path / "t", 1) as stream:
        stream.add(cut(small_trace(), [])[0])
        assert (tmp_path / "t").read_text() == "before"
    assert load_trace(tmp_path / "t").tokens == 6


def test_rows_that_are_no_trace_are_refused(tmp_path: Path) -> None:
    (rows,) = cut(small_trace(), [])
    rows["experts"][0, 0, 0] = 9
    refused = pytest.raises(FormatError, match="expert 9 of a layer that has 4")
    with refused, streaming(INFO, tmp_path / "t") as stream:
        stream.add(rows)
    assert not any(tmp_path.iterdir())


def test_no_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing in it"), streaming(INFO, tmp_path / "t"):
        pass


def test_a_killed_program_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from offsim.trace.stream import streaming
        from tests.trace.traces import INFO, small_arrays
        with streaming(INFO, Path({str(tmp_path / "t")!r}), 2) as stream:
            stream.add(small_arrays())
            os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=root, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "t").exists()


def test_parts_are_forgotten_once_they_are_joined(tmp_path: Path) -> None:
    stream = TraceStream(INFO, tmp_path, 1)
    stream.add(cut(small_trace(), [])[0])
    stream.join(tmp_path / "joined")
    assert load_trace(tmp_path / "joined").tokens == 6
    left = [path.stat().st_size for path in tmp_path.iterdir() if path.name != "joined"]
    assert len(left) == 5
    assert not any(left)
