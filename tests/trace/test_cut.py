import numpy as np
import pytest

from offsim.errors import InputError
from offsim.trace import Trace
from offsim.trace.cut import cut, joined, split
from offsim.trace.format import NOWHERE
from tests.builders import foreseen

from .traces import INFO, small_arrays, small_trace


def same(one: Trace, other: Trace) -> bool:
    arrays, others = one.arrays(), other.arrays()
    return arrays.keys() == others.keys() and all(
        np.array_equal(array, others[name]) for name, array in arrays.items()
    )


def test_nothing_is_cut_where_nothing_is_asked() -> None:
    assert same(cut(small_trace()), small_trace())
    assert same(cut(small_trace(), 2, 9, 9), small_trace())


def test_a_prompt_gives_the_first_token() -> None:
    one = cut(small_trace(), tokens=2)
    assert one.request.tolist() == [0, 0, 0, 3, 3]
    assert one.phase.tolist() == [0, 0, 1, 0, 1]
    decodes = small_trace(phase=np.ones(6, np.uint8))
    assert cut(decodes, tokens=2).request.tolist() == [0, 0, 3, 3]


def test_the_first_requests_and_layers_stay() -> None:
    one = cut(small_trace(), layers=1, requests=1)
    assert one.request.tolist() == [0, 0, 0, 0]
    assert np.array_equal(one.experts, small_arrays()["experts"][:4, :1])
    assert np.array_equal(one.weights, small_arrays()["weights"][:4, :1])


def test_nothing_is_foreseen_of_layers_that_are_gone() -> None:
    experts = np.array([[[0], [1], [2], [3]]] * 2, np.uint16)
    arrays = {name: array[:2] for name, array in small_arrays().items()}
    arrays |= {"experts": experts, "weights": np.ones(experts.shape, np.float16)}
    info = INFO.model_copy(update={"layer_bytes": (1, 2, 3, 4)})
    one = cut(foreseen(Trace(info, **arrays), 2), layers=3)
    assert one.lookahead is not None
    assert one.lookahead[0, :, :, 0].tolist() == [[1, 2], [2, NOWHERE], [NOWHERE] * 2]
    assert one.info.layer_bytes == (1, 2, 3)


def test_requests_are_put_together_anew() -> None:
    first, second = split(small_trace())
    assert (first.tokens, second.tokens) == (4, 2)
    both = joined([second, first, second])
    assert both.request.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert np.array_equal(both.experts[2:6], first.experts)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"layers": 3}, "the trace has 2 layers, not 3"),
        ({"layers": 0}, "at least 1 of its layers, not 0"),
        ({"requests": 0}, "at least 1 of its requests, not 0"),
        ({"tokens": -1}, "at least 1 of its tokens, not -1"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        cut(small_trace(), **asked)
