from pathlib import Path

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.trace import PREFILL, Trace, load_trace, save_trace
from offsim.trace.importers import Options, importer_named

from .files import ids


def read(path: Path, **options: object) -> Trace:
    return importer_named("vllm").read(path, Options(**{"experts": 8, **options}))


def test_one_request_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ids(6).astype(np.int16))
    trace = read(tmp_path / "x.npy", prompt=4)
    np.testing.assert_array_equal(trace.experts, ids(6))
    assert (trace.phase == PREFILL).sum() == 4
    assert "dummies" not in trace.info.source
    save_trace(trace, tmp_path / "t")
    assert load_trace(tmp_path / "t").info == trace.info


def test_prompt_and_answer_of_one_request(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz",
        **{
            "0/routed_experts": ids(3, seed=1),
            "0/prompt_routed_experts": ids(5, seed=2),
            "1/prompt_routed_experts": ids(2, seed=3),
            "1/routed_experts": ids(4, seed=4),
        },
    )
    trace = read(tmp_path / "x.npz")
    assert trace.request.tolist() == [0] * 8 + [1] * 6
    assert trace.phase.tolist() == [0] * 5 + [1] * 3 + [0] * 2 + [1] * 4
    np.testing.assert_array_equal(trace.experts[:5], ids(5, seed=2))


def test_dummy_forwards_are_dropped_and_counted(tmp_path: Path) -> None:
    dummy = ids(16, seed=9)
    np.savez(tmp_path / "x.npz", a=dummy, b=dummy, c=ids(5, seed=1), d=dummy)
    trace = read(tmp_path / "x.npz", prompt=1, dummy_rows=16)
    assert trace.tokens == 5 + 16, "one of that size after the first request is a request"
    assert "32 of 53 rows were profiling dummies, dropped" in trace.info.source
    assert read(tmp_path / "x.npz", prompt=1, dummy_rows=0).tokens == 53


@pytest.mark.parametrize("dummy", [np.tile(ids(1), (32, 1, 1)), np.zeros((32, 2, 2), int)])
def test_dummy_rows_of_one_log(tmp_path: Path, dummy: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", np.concatenate([dummy, ids(20, seed=1)]))
    trace = read(tmp_path / "x.npy", prompt=1, dummy_rows=16)
    np.testing.assert_array_equal(trace.experts, ids(20, seed=1))
    assert "32 of 52 rows" in trace.info.source


def test_a_long_request_is_no_dummy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ids(40))
    assert read(tmp_path / "x.npy", prompt=40, dummy_rows=16).tokens == 40
    np.save(tmp_path / "x.npy", ids(16))
    assert read(tmp_path / "x.npy", prompt=16, dummy_rows=16).tokens == 16


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ids(2)[0]}, r"x\.npz: array a: int64 \(2, 2\), not whole numbers"),
        ({"a": ids(2) * 1.0}, "array a: float64"),
        ({"a": ids(2), "b": ids(2) + 6}, r"x\.npz: array b: expert"),
        ({"a": ids(2) - 8}, "array a: expert -"),
        ({"prompt_routed_experts": ids(2)}, "its routed_experts is missing"),
        (
            {"prompt_routed_experts": ids(2, layers=3), "routed_experts": ids(2)},
            "not the layers and top-k of its prompt",
        ),
        ({"a": np.zeros((16, 2, 2), int)}, "all 16 rows are profiling dummies"),
    ],
)
def test_wrong_arrays_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "x.npz", prompt=0, dummy_rows=16)


def test_options_that_are_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ids(6))
    with pytest.raises(InputError, match="give --prompt"):
        read(tmp_path / "x.npy")
    with pytest.raises(InputError, match="give --experts"):
        read(tmp_path / "x.npy", prompt=0, experts=None)
