import contextlib
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec import decode, encode
from offsim.codec.sz3 import ALGORITHMS, Sz3
from offsim.errors import CodecError, InputError

from .checks import BOUNDS, DTYPES, assert_bound_kept, tensors, weights_like

VALUES = np.random.default_rng(0).normal(0, 0.02, 1000).astype(np.float32)
LARGEST = np.finfo(np.float32).max
EACH = pytest.mark.parametrize("algorithm", ALGORITHMS)
SIZES = {
    "LORENZO_REG": [8.804, 7.792, 6.470, 5.455, 4.446, 3.147, 2.169],
    "INTERP_LORENZO": [9.163, 8.162, 6.687, 5.687, 4.691, 3.406, 2.443],
    "INTERP": [9.234, 8.234, 6.896, 5.895, 4.895, 3.571, 2.603],
    "NOPRED": [8.658, 7.699, 6.403, 5.401, 4.403, 3.118, 2.144],
}
"""Bits a weight of 4096 x 1024 from N(0, 0.02) at each bound, as pysz 1.1 was measured."""
SIZE_BOUNDS = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]


@EACH
def test_every_algorithm_keeps_the_bound_and_is_named_in_the_blob(algorithm: str) -> None:
    blob = assert_bound_kept(weights_like(20, 30), Sz3(algorithm), 1e-3)
    assert blob.header.codec == "sz3"
    assert blob.header.options == {"algorithm": algorithm}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data(), algorithm=st.sampled_from(ALGORITHMS), bound=BOUNDS)
def test_no_weight_is_off_by_more_than_the_bound(
    dtype: torch.dtype, data: st.DataObject, algorithm: str, bound: float
) -> None:
    assert_bound_kept(data.draw(tensors(dtype, shortest=1)), Sz3(algorithm), bound)


@pytest.mark.parametrize("algorithm", SIZES)
def test_sizes_are_those_that_were_measured(algorithm: str) -> None:
    values = weights_like(4096, 1024).float().numpy()
    codec = Sz3(algorithm)
    sizes = [8 * len(codec.encode_values(values, bound)) / values.size for bound in SIZE_BOUNDS]
    assert sizes == pytest.approx(SIZES[algorithm], rel=0.005)


def test_size_without_loss_is_the_one_that_was_measured() -> None:
    values = weights_like(4096, 1024).float().numpy()
    stream = Sz3("LOSSLESS").encode_values(values, 1e-3)
    assert 8 * len(stream) / values.size == pytest.approx(14.691, rel=0.005)
    np.testing.assert_array_equal(Sz3().decode_values(stream, values.shape, 1e-3), values)


def test_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InputError, match="'FFT'"):
        Sz3("FFT")


def test_is_a_bounded_host_codec() -> None:
    assert Sz3().placement == "host"
    assert Sz3().promise == "bound"
    assert Sz3().options() == {"algorithm": "NOPRED"}


def test_decode_needs_no_other_knowledge_than_the_blob() -> None:
    blob = encode(weights_like(20, 30), Sz3("INTERP"), 1e-3)
    assert decode(blob).shape == (20, 30)


def test_tighter_bound_is_kept_too() -> None:
    codec = Sz3()
    for bound in (1e-6, 1e-4, 1e-2):
        back = codec.decode_values(codec.encode_values(VALUES, bound), VALUES.shape, bound)
        assert np.abs(back.astype(float) - VALUES).max() <= bound * (1 + 1e-4)


SHAPES = [(), (1,), (2,), (1, 1, 1, 1), (1, 1, 1, 1, 1), (3, 5), (1, 40), (2, 3, 4, 5), (2,) * 8]


@EACH
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 1e-45, -1e-40, float(LARGEST), -float(LARGEST)], ids=str
)
def test_constants_of_any_shape_and_magnitude(
    algorithm: str, shape: tuple[int, ...], value: float
) -> None:
    values = np.full(shape, value, np.float32)
    codec = Sz3(algorithm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = codec.decode_values(codec.encode_values(values, 1e-3), shape, 1e-3)
    assert back.dtype == np.float32
    assert back.shape == shape
    assert np.abs(back.astype(float) - values).max() <= 1e-3


@EACH
@pytest.mark.parametrize("bound", [1e-300, 1e-45, 1e-20, 1e-3, 1e10, 1e39, 1e300])
def test_mixed_magnitudes_keep_any_bound_or_are_refused(algorithm: str, bound: float) -> None:
    rng = np.random.default_rng(1)
    values = (rng.choice([-1, 1], (33, 33)) * 10.0 ** rng.uniform(-44, 38.5, (33, 33))).astype("f4")
    codec = Sz3(algorithm)
    try:
        back = codec.decode_values(codec.encode_values(values, bound), values.shape, bound)
    except CodecError:
        return
    assert np.abs(back.astype(float) - values).max() <= bound


def test_stream_that_sz3_itself_cannot_read_is_a_codec_error() -> None:
    values = np.where(np.arange(33 * 33) % 2, LARGEST, -LARGEST).reshape(33, 33).astype("f4")
    codec = Sz3("LORENZO_REG")
    with pytest.raises(CodecError, match="not a stream"):
        codec.decode_values(codec.encode_values(values, 1e39), values.shape, 1e39)


def test_empty_input_is_refused() -> None:
    with pytest.raises(CodecError, match="sz3"):
        Sz3().encode_values(VALUES[:0], 1e-3)
    with pytest.raises(CodecError, match="sz3"):
        Sz3().decode_values(b"", (0,), 1e-3)


def test_values_with_gaps_in_memory_encode_as_their_copy() -> None:
    assert Sz3().encode_values(VALUES[::2], 1e-3) == Sz3().encode_values(VALUES[::2].copy(), 1e-3)


@EACH
def test_every_cut_of_a_stream_is_refused_or_harmless(algorithm: str) -> None:
    stream = Sz3(algorithm).encode_values(VALUES[:200], 1e-3)
    for kept in range(len(stream)):
        try:
            back = Sz3().decode_values(stream[:kept], (200,), 1e-3)
        except CodecError:
            continue
        # A stream ends with settings of the encoder; some of the last are not read.
        assert kept > len(stream) - 16
        assert np.abs(back.astype(float) - VALUES[:200]).max() <= 1e-3


@EACH
@settings(derandomize=True, max_examples=200, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_damage_is_refused_or_gives_the_declared_shape(algorithm: str, at: int, bit: int) -> None:
    stream = bytearray(Sz3(algorithm).encode_values(VALUES.reshape(40, 25), 1e-3))
    stream[at % len(stream)] ^= 1 << bit
    with contextlib.suppress(CodecError):
        assert Sz3().decode_values(bytes(stream), (40, 25), 1e-3).shape == (40, 25)


@pytest.mark.parametrize(
    "shape", [(1,), (999,), (1001,), (20, 100), (1 << 40,), (1 << 62, 4), (1 << 70,)], ids=str
)
def test_stream_of_another_count_is_refused(shape: tuple[int, ...]) -> None:
    stream = Sz3().encode_values(VALUES, 1e-3)
    with pytest.raises(CodecError, match="not a stream of"):
        Sz3().decode_values(stream, shape, 1e-3)
