from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.errors import FormatError, InputError
from offsim.trace import DECODE, PREFILL
from offsim.trace.importers import IMPORTERS, importer_named
from offsim.trace.importers.base import Request, agreed, assembled, needed

from .files import ids

PATH = Path("folder/x.npy")


def request(tokens: int = 3, prompt: int = 1, **more: object) -> Request:
    return Request(**{"where": "here", "experts": ids(tokens), "prompt": prompt, **more})


def test_requests_stand_one_after_the_other() -> None:
    sizes = (100, 200)
    two = [request(3, 1), request(2, 0, start=7)]
    trace = assembled(PATH, two, experts=8, model="m", notes=["a note"], layer_bytes=sizes)
    assert trace.request.tolist() == [0, 0, 0, 1, 1]
    assert trace.position.tolist() == [0, 1, 2, 7, 8]
    assert trace.phase.tolist() == [PREFILL, DECODE, DECODE, DECODE, DECODE]
    assert trace.info.layer_bytes == sizes
    assert trace.info.source == (
        "imported from x.npy; a note; weights unknown, even shares stand in"
    )
    assert (trace.weights == 0.5).all()


def test_weights_are_kept() -> None:
    weights = np.linspace(0, 1, 12).reshape(3, 2, 2)
    trace = assembled(PATH, [request(weights=weights)], experts=8, model="m")
    np.testing.assert_array_equal(trace.weights, weights.astype(np.float16))
    assert "weights" not in trace.info.source


def changed(index: tuple[int, ...], value: int) -> np.ndarray:
    found = ids(3)
    found[index] = value
    return found


WEIGHTS = np.full((3, 2, 2), 0.5)
BAD = {
    "no request": ([], FormatError, "no request in it"),
    "too large": ([request(experts=changed((1, 1, 0), 8))], FormatError, "here: expert 8 at token"),
    "missing": ([request(experts=changed((2, 0, 1), -1))], FormatError, "expert -1 at token 2"),
    "twice": ([request(experts=np.zeros((3, 2, 2), int))], FormatError, "expert twice in layer 0"),
    "two axes": ([request(experts=np.zeros((3, 2), int))], FormatError, "shape is"),
    "floats": ([request(experts=np.ones((3, 2, 1)))], FormatError, "float64, not integers"),
    "other layers": (
        [request(), request(experts=ids(3, layers=3))],
        FormatError,
        "3 layers x top-2, where the first request has 2 x top-2",
    ),
    "weight": ([request(weights=WEIGHTS * 3)], FormatError, "a weight is not"),
    "nan": ([request(weights=WEIGHTS * np.nan)], FormatError, "a weight is not"),
    "few weights": ([request(weights=WEIGHTS[:2])], FormatError, "weights have the shape"),
    "long prompt": ([request(prompt=4)], InputError, "a prompt of 4 in 3 tokens"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_trace_cannot_hold(case: str) -> None:
    requests, error, message = BAD[case]
    with pytest.raises(error, match=message):
        assembled(PATH, requests, experts=8, model="m")


def test_wrong_metadata() -> None:
    with pytest.raises(InputError, match="experts_per_layer is 65537"):
        assembled(PATH, [request()], experts=65537, model="m")
    with pytest.raises(FormatError, match=r"x\.npy: trace: layer_bytes has 1 values for 2"):
        assembled(PATH, [request()], experts=8, model="m", layer_bytes=(5,))


def test_options_and_files_must_agree() -> None:
    assert agreed(3, None, "experts", "f") == agreed(None, 3, "experts", "f") == 3
    assert agreed(None, None, "experts", "f") is None
    with pytest.raises(InputError, match="f: the file says 3 and --experts says 4"):
        agreed(3, 4, "experts", "f")
    with pytest.raises(InputError, match="f: the file does not say how; give --prompt"):
        needed(None, "prompt", "how", "f")
    assert needed(0, "prompt", "how", "f") == 0


def test_registry() -> None:
    assert list(IMPORTERS) == ["vllm", "sglang", "megatron", "bigmoe", "cachelab", "arrays"]
    for name, importer in IMPORTERS.items():
        assert importer.name == name
        assert isinstance(importer_named(name), importer)
        assert importer.reads
    with pytest.raises(InputError, match="no trace format is called 'zip'; there are vllm"):
        importer_named("zip")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=4))
def test_every_token_is_kept_in_order(sizes: list[tuple[int, int]]) -> None:
    requests = [request(tokens, min(prompt, tokens)) for tokens, prompt in sizes]
    trace = assembled(PATH, requests, experts=8, model="m")
    np.testing.assert_array_equal(trace.experts, np.concatenate([r.experts for r in requests]))
    assert (trace.phase == PREFILL).sum() == sum(r.prompt for r in requests)
