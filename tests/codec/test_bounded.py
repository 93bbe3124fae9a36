import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec import codec_named, decode, encode
from offsim.codec.bounded import check_bound, largest_error
from offsim.codec.cuszp import Cuszp
from offsim.codec.raw import Raw
from offsim.codec.sz3 import Sz3
from offsim.errors import InputError

from .checks import (
    BOUNDS,
    DTYPES,
    EXAMPLES,
    HERE,
    LOSSY,
    assert_bound_kept,
    assert_same_bits,
    tensors,
    weights_like,
)

STORED = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@STORED
@pytest.mark.parametrize("name", [*HERE, "cuszp:mode=plain", "cuszp:mode=outlier"])
@settings(derandomize=True, max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), bound=BOUNDS)
def test_no_weight_is_off_by_more_than_the_bound(
    name: str, dtype: torch.dtype, data: st.DataObject, bound: float
) -> None:
    weights = data.draw(tensors(dtype))
    assert_bound_kept(weights, codec_named(name), bound)


@STORED
@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("bound", [1e-4, 1e-3, 3e-3, 1e-2, 0.1])
def test_bound_kept_on_weights_without_falling_back(
    name: str, dtype: torch.dtype, bound: float
) -> None:
    blob = assert_bound_kept(weights_like(48, 40, dtype=dtype), codec_named(name), bound)
    assert blob.header.codec == name
    assert 0 < blob.header.codec_bound <= bound
    assert blob.header.bound == bound


@STORED
@pytest.mark.parametrize("name", LOSSY)
def test_looser_bound_compresses_more(name: str, dtype: torch.dtype) -> None:
    weights = weights_like(64, 64, dtype=dtype)
    sizes = [encode(weights, codec_named(name), bound).nbytes for bound in (1e-4, 1e-3, 1e-2)]
    assert sizes[0] > sizes[1] > sizes[2]


@STORED
@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (3, 5, 7), (33,)], ids=str)
def test_shape_and_dtype_come_back(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    blob = assert_bound_kept(weights_like(*shape, dtype=dtype), codec_named(name), 1e-3)
    assert blob.header.shape == shape


@STORED
@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)], ids=str)
def test_empty_tensor(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    blob = assert_bound_kept(torch.empty(shape, dtype=dtype), codec_named(name), 1e-3)
    assert blob.nbytes == 0
    assert blob.ratio == math.inf


@pytest.mark.parametrize("name", HERE)
def test_transposed_view_is_encoded_in_its_own_order(name: str) -> None:
    weights = weights_like(6, 9).T
    assert not weights.is_contiguous()
    assert_bound_kept(weights, codec_named(name), 1e-4)


@pytest.mark.parametrize("name", HERE)
def test_one_value_without_a_stride_of_its_own(name: str) -> None:
    weights = torch.tensor([0.5, 2.0]).bfloat16().as_strided((1, 1), (0, 0))
    assert_bound_kept(weights, codec_named(name), 1e-3)


def test_tensor_that_requires_a_gradient_is_taken() -> None:
    weights = weights_like(8, dtype=torch.float32).requires_grad_()
    assert not decode(encode(weights, Cuszp(), 1e-3)).requires_grad


@pytest.mark.parametrize("name", ["sz3", "cuszp"])  # zfp stays far below its tolerance
def test_bound_is_tightened_where_the_cast_to_bf16_would_break_it(name: str) -> None:
    # From 1 to 2 a bf16 unit is 2**-7: an error of 0.7 units is rounded to 1.
    weights = torch.linspace(1.0, 1.99, 4096).bfloat16()
    bound = 0.7 * 2.0**-7
    codec = codec_named(name)
    untightened = codec.decode(codec.encode(weights, bound), (4096,), torch.bfloat16, bound)
    assert largest_error(weights, untightened) > bound
    blob = assert_bound_kept(weights, codec, bound)
    assert blob.header.codec == name
    assert 0.49 * 2.0**-7 < blob.header.codec_bound <= 0.5 * 2.0**-7


def test_unreachable_bound_falls_back_to_raw_and_says_so() -> None:
    weights = torch.tensor([1e6, 1.0, 0.3])
    blob = encode(weights, Cuszp(), 1e-3)
    assert blob.header.codec == "raw"
    assert blob.header.options == {}
    assert blob.header.bound == 1e-3
    assert blob.header.codec_bound == 0.0
    assert_same_bits(weights, decode(blob))


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_value_that_is_not_finite_is_refused_with_its_position(name: str, bad: float) -> None:
    weights = weights_like(4, 5)
    weights[2, 3] = bad
    weights[3, 0] = bad
    with pytest.raises(InputError, match=rf"the weight at \[2, 3\] is {bad}"):
        encode(weights, codec_named(name), 1e-3)


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("bound", [0.0, -0.0, -1e-3, math.nan, math.inf, -math.inf])
def test_bound_that_is_not_positive_and_finite_is_refused(name: str, bound: float) -> None:
    with pytest.raises(InputError, match="error bound"):
        encode(weights_like(4), codec_named(name), bound)
    with pytest.raises(InputError, match="error bound"):
        check_bound(bound)


def test_lossy_codec_needs_a_bound() -> None:
    with pytest.raises(InputError, match="not 0"):
        encode(weights_like(4), Sz3())


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.float8_e4m3fn], ids=str)
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=str(dtype)):
        encode(torch.zeros(4).to(dtype), Raw())


def test_encoding_is_a_function_of_its_arguments() -> None:
    weights = weights_like(30, 30)
    for name in HERE:
        blobs = {encode(weights, codec_named(name), 1e-3).to_bytes() for _ in range(3)}
        assert len(blobs) == 1


def test_largest_error() -> None:
    before = torch.tensor([1.0, -2.0, 3.0])
    assert largest_error(before, torch.tensor([1.5, -2.25, 3.0])) == 0.5
    assert largest_error(before, before) == 0.0
    assert largest_error(torch.empty(0), torch.empty(0)) == 0.0
    assert math.isnan(largest_error(before, torch.tensor([1.0, np.nan, 3.0])))


def test_too_many_axes_are_refused() -> None:
    with pytest.raises(InputError, match="9 axes"):
        encode(torch.ones([1] * 9), Raw())


@pytest.mark.parametrize("bound", [1e-40, 1e39])
def test_a_bound_that_float32_cannot_hold_falls_back_to_raw(bound: float) -> None:
    weights = torch.tensor([0.0, 1.0, -2.5])
    blob = encode(weights, Cuszp(), bound)
    assert blob.header.codec == "raw"
    assert torch.equal(decode(blob), weights)
