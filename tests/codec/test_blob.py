import json
import struct
import zlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec import Blob, codec_named, decode, encode
from offsim.codec.blob import MAGIC, PREFIX, VERSION
from offsim.codec.raw import Raw
from offsim.errors import CodecError

from .checks import HERE, assert_same_bits, weights_like


def small_blob() -> bytes:
    return encode(weights_like(3, 4), Raw(), 0.0).to_bytes()


def header_of(data: bytes) -> dict[str, Any]:
    length = PREFIX.unpack_from(data)[2]
    header: dict[str, Any] = json.loads(data[PREFIX.size : PREFIX.size + length])
    return header


def with_header(data: bytes, version: int = VERSION, **changes: Any) -> bytes:
    """The container with fields of its header changed and its checksum made right again."""
    length = PREFIX.unpack_from(data)[2]
    fields = {k: v for k, v in {**header_of(data), **changes}.items() if v is not None}
    header = json.dumps(fields).encode()
    prefix = struct.pack("<4sHII", MAGIC, version, len(header), zlib.crc32(header))
    return prefix + header + data[PREFIX.size + length :]


@pytest.mark.parametrize("name", HERE)
def test_container_round_trip(name: str) -> None:
    weights = weights_like(5, 7)
    blob = encode(weights, codec_named(name), 1e-3)
    again = Blob.from_bytes(blob.to_bytes())
    assert again.header == blob.header
    assert bytes(again.payload) == bytes(blob.payload)
    assert again.to_bytes() == blob.to_bytes()
    assert_same_bits(decode(blob), decode(again))


def test_layout_is_that_of_the_module_text() -> None:
    data = small_blob()
    assert data[:4] == b"OFSB"
    assert int.from_bytes(data[4:6], "little") == 1
    length = int.from_bytes(data[6:10], "little")
    header = data[14 : 14 + length]
    assert int.from_bytes(data[10:14], "little") == zlib.crc32(header)
    payload = data[14 + length :]
    assert json.loads(header) == {
        "codec": "raw",
        "options": {},
        "dtype": "bf16",
        "shape": [3, 4],
        "bound": 0.0,
        "codec_bound": 0.0,
        "payload_bytes": 24,
        "payload_crc32": zlib.crc32(payload),
    }
    assert payload == weights_like(3, 4).view(torch.uint8).numpy().tobytes()


def test_sizes() -> None:
    blob = encode(weights_like(3, 4), Raw(), 0.0)
    assert blob.nbytes == 24
    assert blob.count == 12
    assert blob.ratio == 1.0
    assert blob.torch_dtype == torch.bfloat16
    half = Blob.of(bytes(12), **blob.header.model_dump(exclude={"payload_bytes", "payload_crc32"}))
    assert half.ratio == 2.0
    assert half.header.payload_crc32 == zlib.crc32(bytes(12))


def test_with_header_changes_nothing_by_itself() -> None:
    assert Blob.from_bytes(with_header(small_blob())) == Blob.from_bytes(small_blob())


def test_every_flipped_byte_is_noticed() -> None:
    data = small_blob()
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= flip
            with pytest.raises(CodecError):
                Blob.from_bytes(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    data = small_blob()
    for kept in range(len(data)):
        with pytest.raises(CodecError):
            Blob.from_bytes(data[:kept])


def test_appended_bytes_are_noticed() -> None:
    with pytest.raises(CodecError, match="payload"):
        Blob.from_bytes(small_blob() + b"\0")


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_refused(data: bytes, with_magic: bool) -> None:
    with pytest.raises(CodecError):
        Blob.from_bytes(MAGIC + data if with_magic else data)


@pytest.mark.parametrize("magic", [b"OFSC", b"PK\3\4", b"\0\0\0\0", b"BSFO"])
def test_wrong_magic(magic: bytes) -> None:
    with pytest.raises(CodecError, match="magic"):
        Blob.from_bytes(magic + small_blob()[4:])


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_wrong_version_is_named(version: int) -> None:
    with pytest.raises(CodecError, match=f"version {version}; this offsim reads version 1"):
        Blob.from_bytes(with_header(small_blob(), version=version))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "f64"},
        {"dtype": 3},
        {"shape": [3, -4]},
        {"shape": [-3, -4]},
        {"shape": [1] * 9},
        {"shape": "12"},
        {"shape": [3.5]},
        {"bound": -1e-3},
        {"codec_bound": -1e-3},
        {"payload_bytes": 23},
        {"payload_crc32": 0},
        {"payload_crc32": 1 << 32},
        {"options": {"mode": 1}},
        {"unknown": 1},
        {"codec": None},
        {"bound": None},
    ],
    ids=str,
)
def test_header_that_cannot_be_is_refused_though_its_checksum_holds(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(CodecError):
        Blob.from_bytes(with_header(small_blob(), **changes))


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"bound": NaN}'])
def test_header_that_is_not_such_json_is_refused(text: bytes) -> None:
    with pytest.raises(CodecError):
        Blob.from_bytes(struct.pack("<4sHII", MAGIC, VERSION, len(text), zlib.crc32(text)) + text)


# A cuszp stream does not tell counts within one block apart, and sz3 reads none for no values.
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("raw", [1 << 40]),
        ("raw", [2, 3]),
        ("raw", [0]),
        ("sz3", [1 << 40]),
        ("sz3", [2, 3]),
        ("sz3", [4, 3, 2]),
        ("cuszp", [1 << 40]),
        ("cuszp", [1 << 15, 2]),
        ("cuszp", [0]),
    ],
    ids=str,
)
def test_shape_that_the_payload_does_not_have_is_refused(name: str, shape: list[int]) -> None:
    data = encode(weights_like(3, 4), codec_named(name), 1e-3).to_bytes()
    changed = Blob.from_bytes(with_header(data, shape=shape))
    with pytest.raises(CodecError):
        decode(changed)


def test_codec_or_option_unknown_here_is_named() -> None:
    with pytest.raises(CodecError, match="'zip'"):
        decode(Blob.from_bytes(with_header(small_blob(), codec="zip")))
    with pytest.raises(CodecError, match="level"):
        decode(Blob.from_bytes(with_header(small_blob(), options={"level": "3"})))
