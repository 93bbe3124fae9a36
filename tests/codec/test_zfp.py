import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec import encode
from offsim.codec.zfp import HEADER_BYTES, Zfp
from offsim.errors import CodecError, InputError

from .checks import BOUNDS, DTYPES, tensors, weights_like

VALUES = np.random.default_rng(0).normal(0, 0.02, (40, 25)).astype(np.float32)
RANGE = 0.2070312
MEASURED = {
    1e-4: (13.914, 14.353),
    2e-4: (12.914, 13.353),
    5e-4: (10.914, 11.353),
    1e-3: (9.914, 10.353),
    2e-3: (8.914, 9.353),
    5e-3: (7.914, 8.353),
    1e-2: (6.914, 7.352),
    1e-1 * RANGE: (5.914, 6.351),
    1e-2 * RANGE: (8.914, 9.353),
    1e-3 * RANGE: (12.914, 13.353),
}
"""Bits a weight of 4096 x 1024 from N(0, 0.02) by bound: with two axes, and flat."""


@pytest.fixture(scope="module")
def codec() -> Zfp:
    pytest.importorskip("zfpy", reason="needs the extra zfp", exc_type=ImportError)
    return Zfp()


@pytest.mark.parametrize("bound", MEASURED)
def test_sizes_are_those_that_were_measured(codec: Zfp, bound: float) -> None:
    values = weights_like(4096, 1024).float().numpy()
    sizes = [
        8 * len(codec.encode_values(values.reshape(shape), bound)) / values.size
        for shape in ((4096, 1024), (-1,))
    ]
    assert sizes == pytest.approx(MEASURED[bound], rel=0.005)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data(), bound=BOUNDS)
def test_no_weight_is_off_by_more_than_the_bound(
    codec: Zfp, dtype: torch.dtype, data: st.DataObject, bound: float
) -> None:
    weights = data.draw(tensors(dtype, shortest=1))
    blob = encode(weights, codec, bound)
    if blob.header.codec == "raw":
        return
    back = codec.decode(blob.payload, blob.header.shape, dtype, blob.header.codec_bound)
    assert back.dtype == dtype
    assert back.shape == weights.shape
    assert float((back.double() - weights.double()).abs().max()) <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_are_not_stored_raw(codec: Zfp, dtype: torch.dtype) -> None:
    blob = encode(weights_like(64, 64, dtype=dtype), codec, 1e-3)
    assert blob.header.codec == "zfp"
    assert blob.nbytes < 0.7 * 64 * 64 * dtype.itemsize


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (5,), (1, 1, 1), (3, 5, 7), (2, 3, 4, 5), (2, 3, 4, 5, 6), (2,) * 8, (2, 2, 70000)],
    ids=str,
)
def test_shape_comes_back(codec: Zfp, shape: tuple[int, ...]) -> None:
    weights = weights_like(*shape, dtype=torch.float32)
    back = codec.decode(codec.encode(weights, 1e-3), shape, torch.float32, 1e-3)
    assert back.shape == shape
    assert float((back - weights).abs().max()) <= 1e-3


@pytest.mark.parametrize("value", [0.0, 1e-45, -1e-40, 1.0, 3e38, -3.4028234e38])
def test_constants_of_any_magnitude_are_finite_again(codec: Zfp, value: float) -> None:
    values = np.full((9, 9), value, np.float32)
    back = codec.decode_values(codec.encode_values(values, 1e-3), (9, 9), 1e-3)
    assert np.abs(back.astype(float) - values).max() <= max(1e-3, abs(value) * 1e-6)


@pytest.mark.parametrize("bound", [5e-324, 1e300])
def test_bound_out_of_range_is_refused(codec: Zfp, bound: float) -> None:
    with pytest.raises(CodecError, match="out of its range"):
        codec.encode_values(VALUES, bound)
    with pytest.raises(CodecError, match="out of its range"):
        codec.decode_values(bytes(100), VALUES.shape, bound)


@pytest.mark.parametrize("bound", [1e-45, 1e-30, 1e-3, 1.0, 1e38])
def test_header_is_the_one_that_zfp_writes(codec: Zfp, bound: float) -> None:
    for shape in ((1000,), (40, 25), (2, 20, 25), (2, 2, 10, 25)):
        stream = codec.encode_values(VALUES.reshape(shape), bound)
        assert codec.decode_values(stream, shape, bound).shape == shape


def test_values_with_gaps_in_memory_encode_as_their_copy(codec: Zfp) -> None:
    stream = codec.encode_values(VALUES[:, ::2].copy(), 1e-3)
    assert codec.encode_values(VALUES[:, ::2], 1e-3) == stream
    assert codec.decode_values(memoryview(stream), (40, 13), 1e-3).flags.writeable


def test_is_a_bounded_host_codec_without_options(codec: Zfp) -> None:
    assert codec.placement == "host"
    assert codec.promise == "bound"
    assert codec.options() == {}
    assert str(codec) == "zfp"


@pytest.mark.parametrize(
    "shape",
    [(40, 24), (25, 40), (1000,), (40, 5, 5), (1 << 40,), (1 << 70,), (40, 0), (0,)],
    ids=str,
)
def test_stream_of_another_shape_is_refused(codec: Zfp, shape: tuple[int, ...]) -> None:
    stream = codec.encode_values(VALUES, 1e-3)
    with pytest.raises(CodecError, match="zfp"):
        codec.decode_values(stream, shape, 1e-3)


def test_stream_of_another_bound_or_type_is_refused(codec: Zfp) -> None:
    stream = codec.encode_values(VALUES, 1e-3)
    with pytest.raises(CodecError, match=r"at bound 0\.1"):
        codec.decode_values(stream, VALUES.shape, 0.1)
    wide = codec._zfpy.compress_numpy(VALUES.astype(np.float64), tolerance=1e-3)
    with pytest.raises(CodecError, match="not a stream"):
        codec.decode_values(wide, VALUES.shape, 1e-3)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_damage_is_refused_or_gives_the_declared_shape(codec: Zfp, at: int, flip: int) -> None:
    stream = bytearray(codec.encode_values(VALUES, 1e-3))
    at %= len(stream)
    stream[at] ^= flip
    if at < HEADER_BYTES:
        with pytest.raises(CodecError, match="not a stream"):
            codec.decode_values(bytes(stream), VALUES.shape, 1e-3)
    else:
        assert codec.decode_values(bytes(stream), VALUES.shape, 1e-3).shape == VALUES.shape


@pytest.mark.parametrize("fill", [0x00, 0x55, 0xAA, 0xFF])
def test_cut_or_filled_streams_do_not_read_past_their_end(codec: Zfp, fill: int) -> None:
    for shape in ((1000,), (40, 25), (10, 10, 10), (5, 5, 5, 8)):
        stream = codec.encode_values(VALUES.reshape(shape), 1e-38)
        for kept in range(0, len(stream), 97):
            if kept < HEADER_BYTES:
                with pytest.raises(CodecError, match="not a stream"):
                    codec.decode_values(stream[:kept], shape, 1e-38)
                continue
            filled = stream[:kept] + bytes([fill]) * (len(stream) - kept)
            for damaged in (stream[:kept], filled):
                assert codec.decode_values(damaged, shape, 1e-38).shape == shape


def test_without_zfpy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zfpy", None)
    with pytest.raises(InputError, match=r"pip install 'offsim\[zfp\]'"):
        Zfp()
