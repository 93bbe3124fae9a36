import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from offsim.errors import FormatError, InputError
from offsim.trace import Trace, load_trace, save_trace
from offsim.trace.format import DTYPES, NOWHERE, TraceInfo

from .traces import INFO, small_arrays, small_trace

Arrays = dict[str, np.ndarray]


def write(path: Path, arrays: Arrays, metadata: dict[str, str] | None = None) -> None:
    """A trace file without any of the checks."""
    if metadata is None:
        metadata = {"offsim-trace": INFO.model_dump_json()}
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path, metadata)


def changed(name: str, index: tuple[int, ...], value: int) -> Arrays:
    arrays = small_arrays()
    arrays[name][index] = value
    return arrays


def test_round_trip(tmp_path: Path) -> None:
    trace = small_trace()
    save_trace(trace, tmp_path / "a" / "x.trace")
    again = load_trace(tmp_path / "a" / "x.trace")
    assert again.info == trace.info
    for name, dtype in DTYPES.items():
        array = getattr(again, name)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, getattr(trace, name))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x.trace"]


def test_all_metadata_comes_back(tmp_path: Path) -> None:
    info = TraceInfo(model="é", experts_per_layer=9, source="s", codec="cuszp", bound=1e-3)
    save_trace(Trace(info, **small_arrays()), tmp_path / "x.trace")
    assert load_trace(tmp_path / "x.trace").info == info


def test_views_with_gaps_are_saved_as_they_read(tmp_path: Path) -> None:
    arrays = small_arrays()
    wide = np.repeat(arrays["experts"], 2, axis=2)[:, :, ::2]
    assert not wide.flags.c_contiguous
    save_trace(small_trace(experts=wide), tmp_path / "x.trace")
    np.testing.assert_array_equal(load_trace(tmp_path / "x.trace").experts, arrays["experts"])


def test_sizes() -> None:
    trace = small_trace()
    assert (trace.tokens, trace.layers, trace.top_k) == (6, 2, 2)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.trace: no such trace file") as caught:
        load_trace(tmp_path / "none.trace")
    assert not isinstance(caught.value, FormatError)


def test_folder_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such trace file"):
        load_trace(tmp_path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.trace"
    save_trace(small_trace(), path)
    data = path.read_bytes()
    for kept in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:kept])
        with pytest.raises(FormatError, match=r"x\.trace: not a whole safetensors file"):
            load_trace(path)


@pytest.mark.parametrize("data", [b"hello, this is text", bytes(100), b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.trace").write_bytes(data)
    with pytest.raises(FormatError, match=r"x\.trace: "):
        load_trace(tmp_path / "x.trace")


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_safetensors_file_without_our_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    write(tmp_path / "x.trace", small_arrays(), metadata)
    with pytest.raises(FormatError, match=r"x\.trace: not an offsim trace"):
        load_trace(tmp_path / "x.trace")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, "version is 2"),
        ({"version": 0}, "version is 0"),
        ({"experts_per_layer": 0}, "experts_per_layer is 0"),
        ({"experts_per_layer": "four"}, "experts_per_layer is 'four'"),
        ({"bound": -1.0}, "bound is -1.0"),
        ({"model": None}, "model is None"),
        ({"colour": "red"}, "colour is 'red'"),
    ],
    ids=str,
)
def test_wrong_metadata_is_named(tmp_path: Path, change: dict[str, object], named: str) -> None:
    text = json.dumps({**INFO.model_dump(), **change})
    write(tmp_path / "x.trace", small_arrays(), {"offsim-trace": text})
    with pytest.raises(FormatError) as caught:
        load_trace(tmp_path / "x.trace")
    assert str(caught.value).startswith(f"{tmp_path / 'x.trace'}: trace metadata: {named}")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7"])
def test_metadata_that_is_no_object(tmp_path: Path, text: str) -> None:
    write(tmp_path / "x.trace", small_arrays(), {"offsim-trace": text})
    with pytest.raises(FormatError, match=r"x\.trace: "):
        load_trace(tmp_path / "x.trace")


@pytest.mark.parametrize("name", DTYPES)
def test_missing_array_is_named(tmp_path: Path, name: str) -> None:
    arrays = small_arrays()
    del arrays[name]
    write(tmp_path / "x.trace", arrays)
    with pytest.raises(FormatError, match=rf"x\.trace: the trace lacks {name}"):
        load_trace(tmp_path / "x.trace")


BAD: dict[str, tuple[Callable[[], Arrays], str]] = {
    "expert id too large": (lambda: changed("experts", (3, 1, 0), 4), "expert 4 of a layer"),
    "expert twice": (lambda: changed("experts", (2, 0, 1), 1), "same expert twice"),
    "position skips": (lambda: changed("position", (3,), 4), "not in order"),
    "position repeats": (lambda: changed("position", (1,), 0), "not in order"),
    "request falls": (lambda: changed("request", (5,), 2), "not in order"),
    "prefill after decode": (lambda: changed("phase", (3,), 0), "prefill tokens after decode"),
    "unknown phase": (lambda: changed("phase", (3,), 2), "phase 2"),
    "no tokens": (lambda: {n: a[:0] for n, a in small_arrays().items()}, "experts has the shape"),
    "two dimensions": (
        lambda: {**small_arrays(), "experts": small_arrays()["experts"][:, 0]},
        "experts has the shape",
    ),
    "weights of one layer": (
        lambda: {**small_arrays(), "weights": small_arrays()["weights"][:, :1]},
        "weights has the shape",
    ),
    "a request too few": (
        lambda: {**small_arrays(), "request": small_arrays()["request"][:-1]},
        "request does not have one value a token",
    ),
    "a phase too many": (
        lambda: {**small_arrays(), "phase": np.ones(7, np.uint8)},
        "phase does not have one value a token",
    ),
    "positions in columns": (
        lambda: {**small_arrays(), "position": small_arrays()["position"][:, None]},
        "position does not have one value a token",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_do_not_fit_together(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(FormatError, match=message):
        Trace(INFO, **make())
    path = tmp_path / "x.trace"
    write(path, make())
    with pytest.raises(FormatError, match=message) as caught:
        load_trace(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("experts", np.int64),
        ("experts", np.uint8),
        ("weights", np.float32),
        ("request", np.int64),
        ("position", np.uint32),
        ("phase", np.int8),
    ],
)
def test_wrong_dtype_is_named(tmp_path: Path, name: str, dtype: type) -> None:
    arrays = small_arrays()
    arrays[name] = arrays[name].astype(dtype)
    path = tmp_path / "x.trace"
    write(path, arrays)
    with pytest.raises(FormatError, match=f"{name} is {np.dtype(dtype)}") as caught:
        load_trace(path)
    assert str(caught.value).startswith(str(path))


def test_a_request_may_begin_at_any_position_with_decode() -> None:
    arrays = small_arrays()
    arrays["position"] += np.int32(7)
    arrays["phase"][:] = 1
    assert Trace(INFO, **arrays).tokens == 6


def test_metadata_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        INFO.model = "other"


def test_bytes_of_a_layer_come_back(tmp_path: Path) -> None:
    info = INFO.model_copy(update={"layer_bytes": (100, 2**40)})
    save_trace(Trace(info, **small_arrays()), tmp_path / "x.trace")
    assert load_trace(tmp_path / "x.trace").info.layer_bytes == (100, 2**40)


def test_a_trace_without_them_is_written_as_before(tmp_path: Path) -> None:
    save_trace(small_trace(), tmp_path / "x.trace")
    assert b"layer_bytes" not in (tmp_path / "x.trace").read_bytes()
    assert load_trace(tmp_path / "x.trace").info.layer_bytes is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([100], "layer_bytes has 1 values for 2 layers"),
        ([1, 2, 3], "layer_bytes has 3 values for 2 layers"),
        ([100, 0], "layer_bytes.1 is 0"),
        ([100, "many"], "layer_bytes.1 is 'many'"),
        (5, "layer_bytes is 5"),
    ],
)
def test_wrong_bytes_of_a_layer(tmp_path: Path, sizes: object, message: str) -> None:
    metadata = {**json.loads(INFO.model_dump_json()), "layer_bytes": sizes}
    write(tmp_path / "x.trace", small_arrays(), {"offsim-trace": json.dumps(metadata)})
    with pytest.raises(FormatError, match=message) as caught:
        load_trace(tmp_path / "x.trace")
    assert str(caught.value).startswith(str(tmp_path / "x.trace"))


def ahead(distance: int = 2) -> np.ndarray:
    """Of the small trace, which has two layers: the gate of the second one, seen from the first."""
    lookahead = np.full((6, 2, distance, 2), NOWHERE, np.uint16)
    lookahead[:, 0, 0] = [[2, 3], [0, 2], [2, 0], [3, 1], [1, 2], [3, 2]]
    return lookahead


@pytest.mark.parametrize("distance", [1, 2])
def test_lookahead_comes_back(tmp_path: Path, distance: int) -> None:
    trace = small_trace(lookahead=ahead(distance))
    assert set(trace.arrays()) == {*DTYPES, "lookahead"}
    save_trace(trace, tmp_path / "x.trace")
    again = load_trace(tmp_path / "x.trace").lookahead
    assert again is not None
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, ahead(distance))


def test_a_trace_without_lookahead_is_written_as_before(tmp_path: Path) -> None:
    assert set(small_trace(lookahead=None).arrays()) == set(DTYPES)
    save_trace(small_trace(), tmp_path / "x.trace")
    assert b"lookahead" not in (tmp_path / "x.trace").read_bytes()
    assert load_trace(tmp_path / "x.trace").lookahead is None


def test_a_layer_may_have_so_many_experts_that_an_id_is_all_ones() -> None:
    lookahead = ahead()
    lookahead[0, 0, 0, 1] = 65535
    info = INFO.model_copy(update={"experts_per_layer": 65536})
    assert Trace(info, **small_arrays(), lookahead=lookahead).lookahead is lookahead


def wrong(index: tuple[int, ...], value: int) -> np.ndarray:
    lookahead = ahead()
    lookahead[index] = value
    return lookahead


BAD_AHEAD = {
    "id too large": (wrong((3, 0, 0, 0), 4), "lookahead has expert 4 of a layer that has 4"),
    "no id where there is a layer": (wrong((3, 0, 0, 0), NOWHERE), "has expert 65535 of a layer"),
    "id past the last layer": (wrong((3, 1, 0, 0), 1), "past the last layer is not 65535"),
    "id two past the last layer": (wrong((3, 0, 1, 1), 0), "past the last layer is not 65535"),
    "expert twice": (wrong((0, 0, 0, 0), 3), "the same expert twice"),
    "a token too few": (ahead()[1:], r"has the shape \(5, 2, 2, 2\)"),
    "three axes": (ahead()[:, :, 0], r"has the shape \(6, 2, 2\)"),
    "no distance": (ahead()[:, :, :0], r"has the shape \(6, 2, 0, 2\)"),
    "one slot": (ahead()[..., :1], r"has the shape \(6, 2, 2, 1\)"),
    "dtype": (ahead().astype(np.int32), "lookahead is int32, not uint16"),
}


@pytest.mark.parametrize("case", BAD_AHEAD)
def test_lookahead_that_does_not_fit(tmp_path: Path, case: str) -> None:
    lookahead, message = BAD_AHEAD[case]
    with pytest.raises(FormatError, match=message):
        small_trace(lookahead=lookahead)
    path = tmp_path / "x.trace"
    write(path, {**small_arrays(), "lookahead": lookahead})
    with pytest.raises(FormatError, match=message) as caught:
        load_trace(path)
    assert str(caught.value).startswith(str(path))
