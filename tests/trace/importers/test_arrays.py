import json
from pathlib import Path

import numpy as np
import pytest

from offsim.errors import FormatError, InputError
from offsim.trace import DECODE, PREFILL, Trace, load_trace, save_trace
from offsim.trace.importers import Options, importer_named

from .files import ids

META = json.dumps({"model": "m", "experts_per_layer": 8, "phase": "decode"})


def read(path: Path, **options: object) -> Trace:
    return importer_named("arrays").read(path, Options(**options))


def test_the_shared_trace(shared: Path, gpt_oss_trace: Trace, tmp_path: Path) -> None:
    path = shared / "traces" / "gpt-oss-20b_decode.npz"
    trace = read(path)
    assert (trace.tokens, trace.layers, trace.top_k) == (22484, 24, 4)
    assert trace.info.model == "openai/gpt-oss-20b"
    assert len(np.unique(trace.request)) == 44
    save_trace(trace, tmp_path / "t")
    again = load_trace(tmp_path / "t")
    assert again.info == trace.info
    for name, array in gpt_oss_trace.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name][: gpt_oss_trace.tokens], array)
        assert array.dtype == again.arrays()[name].dtype


def test_offsets_weights_and_meta(tmp_path: Path) -> None:
    path, experts = tmp_path / "x.npz", ids(5)
    weights = np.full(experts.shape, 0.25, np.float32)
    np.savez(path, experts=experts, weights=weights, request_offsets=[0, 2, 5], meta=META)
    trace = read(path)
    assert trace.request.tolist() == [0, 0, 1, 1, 1]
    assert (trace.phase == DECODE).all()
    assert (trace.weights == 0.25).all()
    assert trace.info.model == "m"


def test_one_plain_array(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, ids(5).astype(np.uint8))
    trace = read(path, experts=8, prompt=2, model="mine")
    assert trace.phase.tolist() == [PREFILL] * 2 + [DECODE] * 3
    assert trace.info.model == "mine"
    with pytest.raises(InputError, match="how long the prompts are; give --prompt"):
        read(path, experts=8)
    with pytest.raises(InputError, match="how many experts a layer has; give --experts"):
        read(path, prompt=0)
    with pytest.raises(InputError, match="a prompt of 6 in 5 tokens"):
        read(path, experts=8, prompt=6)


def test_all_rows_may_be_prefill(tmp_path: Path) -> None:
    meta = META.replace("decode", "prefill")
    np.savez(tmp_path / "x.npz", experts=ids(5), request_offsets=[0, 2, 5], meta=meta)
    assert (read(tmp_path / "x.npz").phase == PREFILL).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": ids(2)}, "there is no array experts; it has other"),
        ({"experts": ids(2)[0]}, "x.npz: experts: the shape is"),
        ({"experts": ids(2), "probs": ids(2)}, "probs is int64"),
        ({"experts": ids(2), "weights": np.ones(3)}, "weights is float64"),
        ({"experts": ids(2), "request_offsets": [0, 1]}, "request_offsets do not rise"),
        ({"experts": ids(2), "request_offsets": [0, 1, 1, 2]}, "request_offsets do not rise"),
        ({"experts": ids(2), "request_offsets": [0.0, 2.0]}, "request_offsets do not rise"),
        ({"experts": ids(2), "meta": "{"}, "x.npz: meta: not JSON"),
        ({"experts": ids(2), "meta": np.arange(2)}, "meta is not one text"),
        ({"experts": ids(2), "meta": '{"experts_per_layer": "x"}'}, "experts_per_layer is 'x'"),
        ({"experts": ids(2) + 7}, "x.npz: experts, request 0: expert"),
    ],
)
def test_wrong_arrays_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "x.npz", experts=8, prompt=0)


def test_an_option_that_disagrees(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", experts=ids(5), meta=META)
    with pytest.raises(InputError, match="the file says 8 and --experts says 9"):
        read(tmp_path / "x.npz", experts=9)
