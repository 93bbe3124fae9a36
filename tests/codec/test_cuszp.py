import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offsim.codec.cuszp import Cuszp, decode_into, decode_stream, encode_stream
from offsim.errors import CodecError, InputError

from .checks import DTYPES, sha256, weights_like
from .cuszp_cases import CASES, INPUTS, MODES, id_of, normal

# The worked example of the format: a bound of 0.5 rounds to the nearest whole number.
EXAMPLE = np.fromstring(
    "10.0 10.4 11.2 11.6 12.4 11.9 11.0 10.6 9.4 9.0 8.2 8.6 9.9 10.3 10.0 10.0 "
    "10.5 11.5 12.5 13.5 13.2 12.1 11.1 10.2 9.1 8.9 8.0 7.4 7.6 8.4 9.3 10.1",
    np.float32,
    sep=" ",
)
EXAMPLE_QUANTA = np.fromstring(
    "10 10 11 12 12 12 11 11 9 9 8 9 10 10 10 10 11 12 13 14 13 12 11 10 9 9 8 7 8 8 9 10",
    np.float32,
    sep=" ",
)
EXAMPLE_PAYLOAD = bytes.fromhex("00000000 23d0aad2 e30f9311 1c007c10 ffffffef")
EXAMPLE_STREAMS = {
    "fixed": b"\x04" + bytes(1023) + EXAMPLE_PAYLOAD,
    "plain": b"\x04" + bytes(1023) + bytes.fromhex("02a00fb0 3238ffbb 80800000 00000000 80000000"),
    "outlier": b"\x82" + bytes(1023) + bytes.fromhex("0a 02a00fb0 3238ffbb 00800000"),
}


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_stream_and_values_are_those_of_the_official_library(case: dict[str, Any]) -> None:
    values = INPUTS[case["name"]]()
    assert len(values) == case["n"]
    assert sha256(values.tobytes()) == case["input"], "this input is not the one that was encoded"
    stream = encode_stream(values, case["eb"], case["mode"])
    assert sha256(stream) == case["stream"]
    decoded = decode_stream(stream, case["n"], case["eb"], case["mode"])
    assert sha256(decoded.tobytes()) == case["decoded"]


def test_official_streams_in_the_shared_folder(shared: Path) -> None:
    folder = shared / "golden" / "cuszp"
    if not (folder / "index.json").is_file():
        pytest.skip("needs index.json in shared/golden/cuszp")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert len(index["cases"]) == len(CASES) == 132
    for case in index["cases"]:
        where = f"{case['name']}, {case['mode']}, at {case['eb']}"
        official = (folder / case["compressed_file"]).read_bytes()
        assert sha256(official) == case["compressed_sha256"], where
        if case["input_file"]:
            values = np.fromfile(folder / case["input_file"], np.float32)
        else:
            values = INPUTS[case["name"]]()
        assert sha256(values.tobytes()) == case["input_sha256"], where
        assert encode_stream(values, case["eb"], case["mode"]) == official, where
        decoded = decode_stream(official, case["n"], case["eb"], case["mode"])
        assert sha256(decoded.tobytes()) == case["decompressed_sha256"], where


@pytest.mark.parametrize("mode", MODES)
def test_worked_example_byte_for_byte(mode: str) -> None:
    expected = EXAMPLE_STREAMS[mode]
    assert encode_stream(EXAMPLE, 0.5, mode) == expected
    np.testing.assert_array_equal(decode_stream(expected, 32, 0.5, mode), EXAMPLE_QUANTA)


def test_outlier_block_without_planes() -> None:
    values = np.full(32, -700.0, np.float32)
    expected = b"\xa0" + bytes(1023) + bytes.fromhex("bc02 80000000")
    assert encode_stream(values, 0.5, "outlier") == expected
    np.testing.assert_array_equal(decode_stream(expected, 32, 0.5, "outlier"), values)


def test_outlier_payloads_begin_at_any_byte() -> None:
    stream = encode_stream(np.concatenate([EXAMPLE, EXAMPLE]), 0.5, "outlier")
    payload = EXAMPLE_STREAMS["outlier"][1024:]
    assert len(payload) == 13
    assert stream == b"\x82\x82" + bytes(1022) + 2 * payload


def test_payloads_of_blocks_follow_each_other() -> None:
    stream = encode_stream(np.concatenate([EXAMPLE, EXAMPLE]), 0.5)
    assert stream == b"\x04\x04" + bytes(1022) + 2 * EXAMPLE_PAYLOAD


def test_a_zero_block_takes_no_room() -> None:
    values = np.concatenate([EXAMPLE, np.zeros(32, np.float32), EXAMPLE])
    stream = encode_stream(values, 0.5)
    assert stream == b"\x04\x00\x04" + bytes(1021) + 2 * EXAMPLE_PAYLOAD
    np.testing.assert_array_equal(decode_stream(stream, 96, 0.5)[32:64], 0.0)


@pytest.mark.parametrize(
    ("quotient", "quantum"),
    [
        (0.5, 1),
        (1.5, 2),
        (2.5, 3),
        (-0.5, 0),
        (-0.50000006, -1),
        (-1.5, -2),
        (0.49999997, 1),
        (-0.49999997, 0),
        (0.0, 0),
        (-0.0, 0),
        (4194303.0, 4194303),
        (-4194303.0, -4194303),
    ],
)
def test_rounding_of_a_quotient(quotient: float, quantum: int) -> None:
    values = np.array([quotient], np.float32)
    decoded = decode_stream(encode_stream(values, 0.5), 1, 0.5)
    assert decoded[0] == quantum
    assert not np.signbit(decoded[0]) or quantum < 0


def test_saturated_quotients_follow_the_official_rules() -> None:
    # Beyond int32, both signs end at the largest quantum and NaN at -1.
    values = np.array([3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
    decoded = decode_stream(encode_stream(values, 0.5), 5, 0.5)
    top = np.float32(2147483647)
    np.testing.assert_array_equal(decoded, [top, top, top, top, -1.0])


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1024, 32767, 32768, 32769])
def test_sizes_follow_the_layout(count: int) -> None:
    values = np.full(count, 3.0, np.float32)
    stream = encode_stream(values, 0.5)
    blocks, superblocks = -(-count // 32), -(-count // 32768)
    assert len(stream) == superblocks * 1024 + blocks * (4 + 4 * 2)
    np.testing.assert_array_equal(decode_stream(stream, count, 0.5), values)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    quanta=hnp.arrays(np.int32, st.integers(0, 100), elements=st.integers(-(2**21), 2**21)),
    exponent=st.integers(-20, 3),
)
def test_multiples_of_the_step_come_back_exactly(quanta: np.ndarray, exponent: int) -> None:
    values = quanta.astype(np.float32) * np.float32(2.0**exponent)
    bound = 2.0 ** (exponent - 1)
    back = decode_stream(encode_stream(values, bound), len(values), bound)
    np.testing.assert_array_equal(back, values)


def good_stream() -> bytes:
    return encode_stream(normal(3, 100), 1e-3)


@pytest.mark.parametrize("kept", [0, 1, 1023, 1024, 1025, -4, -1])
def test_cut_stream_is_refused(kept: int) -> None:
    with pytest.raises(CodecError):
        decode_stream(good_stream()[:kept], 100, 1e-3)


@pytest.mark.parametrize("extra", [1, 4, 1024])
def test_longer_stream_is_refused(extra: int) -> None:
    with pytest.raises(CodecError, match="bytes where the rates call for"):
        decode_stream(good_stream() + bytes(extra), 100, 1e-3)


@pytest.mark.parametrize("rate", [32, 127, 128, 255])
def test_rate_over_31_is_refused(rate: int) -> None:
    stream = bytes([rate]) + bytes(1023) + bytes(4 + 4 * rate)
    with pytest.raises(CodecError, match="a rate that no encoder writes"):
        decode_stream(stream, 32, 1e-3)


def test_rate_of_31_is_taken() -> None:
    stream = b"\x1f" + bytes(1023) + b"\x80" + bytes(3) + 31 * (b"\x80" + bytes(3))
    decoded = decode_stream(stream, 32, 0.5)
    assert decoded[0] == -np.float32(2**31 - 1)
    assert not decoded[1:].any()


@pytest.mark.parametrize("block", [4, 1023])
def test_rate_past_the_last_block_is_refused(block: int) -> None:
    stream = bytearray(good_stream()) + bytes(8)
    stream[block] = 1
    with pytest.raises(CodecError, match="a rate that no encoder writes"):
        decode_stream(bytes(stream), 100, 1e-3)


def test_stream_of_another_count_is_refused() -> None:
    for count in (0, 64, 40000):
        with pytest.raises(CodecError):
            decode_stream(good_stream(), count, 1e-3)


def test_any_read_only_buffer_decodes() -> None:
    stream = good_stream()
    expected = decode_stream(stream, 100, 1e-3)
    np.testing.assert_array_equal(decode_stream(memoryview(stream), 100, 1e-3), expected)


def test_values_with_gaps_in_memory_encode_as_their_copy() -> None:
    values = normal(5, 200)
    assert encode_stream(values[::2], 1e-3) == encode_stream(values[::2].copy(), 1e-3)


@pytest.mark.parametrize("bound", [0.0, -1e-3, 1e-46, 1e-40, float("nan")])
def test_bound_without_a_finite_inverse_is_refused(bound: float) -> None:
    with pytest.raises(InputError, match="bound"):
        encode_stream(np.zeros(1, np.float32), bound)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [0, 1, 32768, 32769, 200_001])
def test_threads_give_the_same_bytes_and_values(mode: str, count: int) -> None:
    values = normal(13, count)
    stream = encode_stream(values, 1e-3, mode)
    alone = decode_stream(stream, count, 1e-3, mode)
    for threads in (2, 3, 64):
        assert encode_stream(values, 1e-3, mode, threads) == stream
        together = decode_stream(stream, count, 1e-3, mode, threads)
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decodes_into_memory_of_the_caller(dtype: torch.dtype) -> None:
    stream = encode_stream(normal(13, 70), 1e-3)
    out = torch.full((7, 10), 9.0, dtype=dtype)
    decode_into(stream, out, 1e-3)
    expected = torch.from_numpy(decode_stream(stream, 70, 1e-3)).to(dtype).view(7, 10)
    assert torch.equal(out, expected)


def test_nothing_is_written_from_a_damaged_stream() -> None:
    out = torch.full((100,), 9.0)
    with pytest.raises(CodecError):
        decode_into(good_stream()[:-1], out, 1e-3)
    assert bool((out == 9.0).all())


def test_outlier_bits_without_the_outlier_flag_are_refused() -> None:
    stream = bytes([0b0010_0001]) + bytes(1023) + bytes(8)
    with pytest.raises(CodecError, match="a rate that no encoder writes"):
        decode_stream(stream, 32, 1e-3, "outlier")


def test_codec_refuses_a_quotient_that_it_cannot_round() -> None:
    codec = Cuszp()
    with pytest.raises(CodecError, match="too fine"):
        codec.encode(torch.tensor([4194304.0]), 0.5)
    below = torch.tensor([4194303.0])
    assert torch.equal(codec.decode(codec.encode(below, 0.5), (1,), torch.float32, 0.5), below)


def test_codec_knows_three_modes() -> None:
    assert Cuszp().options() == {"mode": "fixed"}
    assert str(Cuszp()) == "cuszp"
    assert str(Cuszp(mode="plain")) == "cuszp:mode=plain"
    with pytest.raises(InputError, match="'fast'"):
        Cuszp(mode="fast")


def test_compresses_weights() -> None:
    values = weights_like(64, 64).float().numpy().ravel()
    assert len(encode_stream(values, 1e-3)) < values.nbytes / 3


SIZES = {
    "fixed": [9.538, 8.547, 7.274, 6.283, 5.301, 4.186, 3.254],
    "plain": [10.114, 9.116, 7.748, 6.764, 5.797, 4.459, 3.599],
    "outlier": [10.114, 9.116, 7.747, 6.764, 5.797, 4.459, 3.599],
}
"""Bits a weight of 4096 x 1024 from N(0, 0.02) in bf16 at each bound, by the official kernels."""


@pytest.mark.parametrize("mode", MODES)
def test_sizes_are_those_of_the_official_library(mode: str) -> None:
    values = weights_like(4096, 1024).float().numpy()
    bounds = [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    sizes = [8 * len(encode_stream(values, bound, mode)) / values.size for bound in bounds]
    assert sizes == pytest.approx(SIZES[mode], rel=0.005)
