import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec import decode, encode
from offsim.codec.raw import Raw
from offsim.errors import CodecError

from .checks import DTYPES, assert_same_bits, tensors, weights_like


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data())
def test_every_bit_comes_back(dtype: torch.dtype, data: st.DataObject) -> None:
    weights = data.draw(tensors(dtype, shortest=1))
    back = decode(encode(weights, Raw()))
    assert back.shape == weights.shape
    assert_same_bits(weights.view(-1), back.view(-1))


def test_negative_zero_and_denormals_keep_their_bits() -> None:
    weights = torch.tensor([-0.0, 1e-45, -1e-40, 0.0])
    assert_same_bits(weights, decode(encode(weights, Raw())))


def test_payload_is_the_stored_bytes() -> None:
    values = np.array([1.0, -2.0], np.float32)
    assert Raw().encode(torch.from_numpy(values), 0.0) == values.tobytes()
    assert Raw().encode(torch.from_numpy(values).bfloat16(), 0.0) == b"\x80\x3f\x00\xc0"


def test_is_an_exact_device_codec_without_options() -> None:
    assert Raw().promise == "exact"
    assert Raw().placement == "device"
    assert Raw().options() == {}


@pytest.mark.parametrize("size", [0, 1, 23, 25, 48])
def test_payload_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(CodecError, match=f"{size} bytes where 12 values take 24"):
        Raw().decode(bytes(size), (3, 4), torch.bfloat16, 0.0)


def test_decoded_tensor_is_a_copy_that_can_be_written() -> None:
    payload = Raw().encode(weights_like(4), 0.0)
    first = Raw().decode(payload, (4,), torch.bfloat16, 0.0)
    first.zero_()
    assert_same_bits(weights_like(4), Raw().decode(payload, (4,), torch.bfloat16, 0.0))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 1, 1, 1, 1, 1, 2, 1)], ids=str)
def test_shape_comes_back(shape: tuple[int, ...]) -> None:
    payload = Raw().encode(weights_like(*shape), 0.0)
    back = Raw().decode(memoryview(payload), shape, torch.bfloat16, 0.0)
    assert back.shape == shape
    assert torch.equal(back, weights_like(*shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_empty_tensor_comes_back(dtype: torch.dtype) -> None:
    back = decode(encode(torch.empty(0, 3, dtype=dtype), Raw()))
    assert back.dtype == dtype
    assert back.shape == (0, 3)


@pytest.mark.parametrize("bound", [-1.0, float("nan")])
def test_a_bound_is_ignored(bound: float) -> None:
    assert encode(torch.ones(3), Raw(), bound).header.bound == 0.0
