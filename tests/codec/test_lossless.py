import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from offsim.codec import encode
from offsim.codec.lossless import Lossless
from offsim.errors import CodecError, InputError

from .checks import DTYPES, assert_same_bits, tensors, weights_like

MEASURED = {"1": 1.471, "3": 1.422}
"""Ratio to bf16 of 4096 x 1024 weights from N(0, 0.02), by level."""


def there_and_back(weights: torch.Tensor, level: str = "1") -> torch.Tensor:
    payload = Lossless(level).encode(weights, 0.0)
    return Lossless().decode(payload, tuple(weights.shape), weights.dtype, 0.0)


def frames_of(payload: bytes, planes: int) -> list[bytes]:
    sizes = struct.unpack_from(f"<{planes}Q", payload)
    ends = 8 * planes + np.cumsum(sizes)
    return [payload[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def payload_of(frames: list[bytes]) -> bytes:
    return struct.pack(f"<{len(frames)}Q", *map(len, frames)) + b"".join(frames)


@pytest.mark.parametrize("level", MEASURED)
def test_sizes_are_those_that_were_measured(level: str) -> None:
    weights = weights_like(4096, 1024)
    payload = Lossless(level).encode(weights, 0.0)
    assert weights.nbytes / len(payload) == pytest.approx(MEASURED[level], rel=0.005)
    assert_same_bits(weights, Lossless().decode(payload, (4096, 1024), weights.dtype, 0.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_of_every_dtype_get_smaller(dtype: torch.dtype) -> None:
    weights = torch.from_numpy(np.random.default_rng(0).normal(0, 0.02, 1 << 16)).to(dtype)
    assert len(Lossless().encode(weights, 0.0)) < 0.95 * weights.nbytes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data(), level=st.sampled_from(["1", "3", "9"]))
def test_every_bit_comes_back(dtype: torch.dtype, data: st.DataObject, level: str) -> None:
    weights = data.draw(tensors(dtype, shortest=1))
    back = there_and_back(weights, level)
    assert back.shape == weights.shape
    assert_same_bits(weights.view(-1), back.view(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_pattern_comes_back(dtype: torch.dtype) -> None:
    weights = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16)).view(dtype)
    assert_same_bits(weights, there_and_back(weights))


def test_negative_zero_denormals_and_extremes_keep_their_bits() -> None:
    top = torch.finfo(torch.float32).max
    weights = torch.tensor([-0.0, 1e-45, -1e-40, 0.0, top, -top])
    assert_same_bits(weights, there_and_back(weights))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (3, 5, 7), (2,) * 8], ids=str)
def test_shape_comes_back(shape: tuple[int, ...]) -> None:
    back = there_and_back(weights_like(*shape))
    assert back.shape == shape
    assert torch.equal(back, weights_like(*shape))


def test_top_plane_of_bf16_is_the_exponent() -> None:
    weights = torch.tensor([1.0, -1.0, 2.0, -1.5]).bfloat16()
    low, high = (
        Lossless().decode(payload_of([frame] * 2), (4,), torch.bfloat16, 0.0).view(torch.uint16)
        for frame in frames_of(Lossless().encode(weights, 0.0), 2)
    )
    # A number of two equal bytes b is stored as b:b turned right by one bit.
    assert [int(word) << 1 & 0xFF | int(word) >> 15 for word in low] == [0, 1, 0, 0x81]
    assert [int(word) << 1 & 0xFF | int(word) >> 15 for word in high] == [127, 127, 128, 127]


def test_is_an_exact_host_codec() -> None:
    codec = Lossless()
    assert codec.promise == "exact"
    assert codec.placement == "host"
    assert codec.options() == {"level": "1"}
    assert str(Lossless("19")) == "lossless:level=19"
    blob = encode(weights_like(64, 64), codec)
    assert blob.header.codec == "lossless"
    assert blob.header.bound == 0.0


@pytest.mark.parametrize("level", ["0", "23", "-1", "1.5", "", "fast", "01"])
def test_other_levels_are_refused(level: str) -> None:
    with pytest.raises(InputError, match=f"no level '{level}'; it has 1 to 22"):
        Lossless(level)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_cut_and_every_extra_byte_is_refused(dtype: torch.dtype) -> None:
    payload = Lossless().encode(weights_like(9, 11, dtype=dtype), 0.0)
    for kept in range(len(payload)):
        with pytest.raises(CodecError, match="lossless"):
            Lossless().decode(payload[:kept], (9, 11), dtype, 0.0)
    for extra in (b"\0", payload, bytes(1000)):
        with pytest.raises(CodecError, match="lossless"):
            Lossless().decode(payload + extra, (9, 11), dtype, 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flipped_bits_are_refused_or_give_the_declared_shape(dtype: torch.dtype) -> None:
    weights = torch.round(weights_like(9, 11, dtype=torch.float32) * 100).to(dtype)
    payload = Lossless().encode(weights, 0.0)
    for at in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[at // 8] ^= 1 << at % 8
        try:
            back = Lossless().decode(bytes(damaged), (9, 11), dtype, 0.0)
        except CodecError:
            continue
        assert back.shape == (9, 11)
        assert back.dtype == dtype


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError, match="lossless"):
        Lossless().decode(data, (7,), torch.bfloat16, 0.0)


@pytest.mark.parametrize("shape", [(98,), (100,), (10, 9), (0,), (1 << 40,), (1 << 70,)], ids=str)
def test_stream_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    payload = Lossless().encode(weights_like(99), 0.0)
    with pytest.raises(CodecError, match="not a stream of"):
        Lossless().decode(payload, shape, torch.bfloat16, 0.0)


def test_stream_of_another_dtype_is_refused() -> None:
    payload = Lossless().encode(weights_like(99), 0.0)
    with pytest.raises(CodecError, match="not 4 planes"):
        Lossless().decode(payload, (99,), torch.float32, 0.0)


ZEROS = ZstdCompressor().compress(bytes(99))
# 0xE0: eight bytes of content size, one segment.
CLAIMS_A_TEBIBYTE = ZEROS[:4] + b"\xe0" + struct.pack("<Q", 1 << 40) + ZEROS[6:]
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"skip"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(CLAIMS_A_TEBIBYTE, id="claims a tebibyte"),
        pytest.param(ZstdCompressor().compress(bytes(1 << 20)), id="is a mebibyte"),
        pytest.param(ZstdCompressor(write_content_size=False).compress(bytes(99)), id="no size"),
        pytest.param(ZEROS + ZEROS, id="two frames"),
        pytest.param(ZEROS + SKIPPABLE, id="followed by a skippable frame"),
        pytest.param(SKIPPABLE + ZEROS, id="after a skippable frame"),
        pytest.param(SKIPPABLE, id="only a skippable frame"),
        pytest.param(b"", id="empty"),
        pytest.param(bytes(50), id="no frame"),
    ],
)
def test_frame_that_is_not_one_of_the_right_size_is_refused(frame: bytes) -> None:
    assert_same_bits(
        torch.zeros(99, dtype=torch.bfloat16),
        Lossless().decode(payload_of([ZEROS, ZEROS]), (99,), torch.bfloat16, 0.0),
    )
    for frames in ([frame, ZEROS], [ZEROS, frame]):
        with pytest.raises(CodecError, match="lossless"):
            Lossless().decode(payload_of(frames), (99,), torch.bfloat16, 0.0)


def test_frame_with_more_in_it_than_it_says_is_refused() -> None:
    content = np.random.default_rng(0).bytes(200)
    honest = ZstdCompressor().compress(content)
    assert honest[4:6] == b"\x20\xc8"  # one segment of 200 bytes
    for said in (199, 100, 1):
        frame = honest[:5] + bytes([said]) + honest[6:]
        with pytest.raises(CodecError, match="damaged"):
            Lossless().decode(payload_of([frame, frame]), (said,), torch.bfloat16, 0.0)


def test_decoded_tensor_is_memory_of_its_own() -> None:
    payload = bytearray(Lossless().encode(weights_like(256), 0.0))
    back = Lossless().decode(memoryview(payload), (256,), torch.bfloat16, 0.0)
    payload[:] = bytes(len(payload))
    assert torch.equal(back, weights_like(256))
    back.zero_()
