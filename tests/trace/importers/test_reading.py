from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.errors import FormatError, InputError
from offsim.trace.importers.reading import (
    expert_ids,
    integer,
    json_lines,
    load_arrays,
    maybe_integer,
)


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "\u2028"}\n')
    assert list(json_lines(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": "\u2028"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": ', r"x\.jsonl:2: not JSON .*is the file cut"),
        ("[1]", r"x\.jsonl:1: not a JSON object"),
        ('{"a":' * 200000, r"x\.jsonl:1: not JSON"),
        ('{"a": ' + "1" * 5000 + "}", r"x\.jsonl:1: not JSON"),
    ],
    ids=["cut", "a list", "deep", "a long number"],
)
def test_other_lines_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(FormatError, match=message):
        list(json_lines(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("value", ["1", 1.0, True, -1, 2**31, [1], None])
def test_integers(value: object) -> None:
    with pytest.raises(FormatError, match=r"f:3: n is .*, not a whole number from 0"):
        integer({"n": value}, "n", "f:3")


def test_missing_integers() -> None:
    with pytest.raises(FormatError, match="f:3: n is missing"):
        integer({}, "n", "f:3")
    assert maybe_integer({"n": None}, "n", "f") is maybe_integer({}, "n", "f") is None
    assert maybe_integer({"n": 5}, "n", "f") == 5


@pytest.mark.parametrize(
    "value", [None, [], "ab", [1, 2], [[1], [2, 3]], [[1.5]], [["1"]], [[None]], [[2**70]], [[[1]]]]
)
def test_lists_that_are_no_ids(value: object) -> None:
    with pytest.raises(FormatError, match="f:1: expert ids are not"):
        expert_ids(value, "f:1", 2)


def test_arrays_and_their_names(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3))
    assert list(load_arrays(tmp_path / "x.npy")) == [""]
    np.savez(tmp_path / "x.npz", b=np.arange(2), a=np.arange(3))
    assert list(load_arrays(tmp_path / "x.npz")) == ["b", "a"]
    with pytest.raises(InputError, match="no such file"):
        load_arrays(tmp_path / "y.npz")


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    held = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "x.npy", held)
    with pytest.raises(FormatError, match=r"x\.npy: not a whole"):
        load_arrays(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", held=held)
    with pytest.raises(FormatError, match=r"x\.npz: array held is cut or not a plain array"):
        load_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_every_cut_is_noticed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    (np.save if kind == "npy" else np.savez)(path, np.arange(64))
    data = path.read_bytes()
    for kept in range(0, len(data), 11):
        path.write_bytes(data[:kept])
        with pytest.raises(FormatError, match=rf"x\.{kind}"):
            load_arrays(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_sentence(tmp_path_factory: object, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.npz"
    path.write_bytes(b"PK\x03\x04" + data)
    with pytest.raises(FormatError):
        load_arrays(path)
