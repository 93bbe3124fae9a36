"""Damaged blobs: each is refused with one error, at once and without taking memory for it."""

import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from offsim.codec import Blob, codec_named, decode, encode
from offsim.codec.blob import MAGIC, PREFIX, VERSION
from offsim.errors import CodecError

from .checks import DTYPES, weights_like

MUTATED = 100_000
FORGED = 4_000
OURS = ("raw", "cuszp", "cuszp:mode=outlier", "rtn-int8", "rtn-int4", "lossless")
"""Codecs whose decoders are ours to the last byte: they must bear a payload that was forged."""
ALL = (*OURS, "sz3")
Generator = np.random.Generator


def blobs() -> list[bytes]:
    found = []
    for name in ALL:
        for dtype in DTYPES:
            for shape in ((33,), (7, 40), (64, 65)):
                weights = weights_like(*shape, dtype=dtype, seed=len(found))
                found.append(encode(weights, codec_named(name), 2.0**-8).to_bytes())
    return found


def flipped(rng: Generator, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, 8 * len(data), rng.integers(1, 9)):
        changed[at >> 3] ^= 1 << (at & 7)
    return bytes(changed)


def flipped_early(rng: Generator, data: bytes, other: bytes) -> bytes:
    end = PREFIX.size + PREFIX.unpack_from(data)[2]
    return flipped(rng, data[:end], other) + data[end:]


def cut(rng: Generator, data: bytes, _: bytes) -> bytes:
    return data[: rng.integers(0, len(data))]


def grown(rng: Generator, data: bytes, _: bytes) -> bytes:
    at = rng.integers(0, len(data) + 1)
    return data[:at] + rng.bytes(rng.integers(1, 40)) + data[at:]


def lacking(rng: Generator, data: bytes, _: bytes) -> bytes:
    start, end = sorted(rng.integers(0, len(data) + 1, 2))
    return data[:start] + data[end:]


def overwritten(rng: Generator, data: bytes, _: bytes) -> bytes:
    at, size = rng.integers(0, len(data)), rng.integers(1, 64)
    return (data[:at] + rng.bytes(size) + data[at + size :])[: len(data)]


def with_other_header(_: Generator, data: bytes, other: bytes) -> bytes:
    """The header of one blob, checksum and all, before the payload of another."""
    end, start = (PREFIX.size + PREFIX.unpack_from(part)[2] for part in (other, data))
    return other[:end] + data[start:]


def crossed(rng: Generator, data: bytes, other: bytes) -> bytes:
    return data[: rng.integers(0, len(data))] + other[rng.integers(0, len(other)) :]


MUTATIONS = (
    flipped, flipped_early, cut, grown, lacking, overwritten, with_other_header, crossed
)  # fmt: skip


def mutants(count: int, seed: int) -> Iterator[bytes]:
    rng, originals = np.random.default_rng(seed), blobs()
    known = set(originals)
    while count:
        data, other = (originals[at] for at in rng.integers(0, len(originals), 2))
        mutate: Callable[[Generator, bytes, bytes], bytes] = MUTATIONS[rng.integers(8)]
        mutant = mutate(rng, data, other)
        if mutant not in known:
            count -= 1
            yield mutant


def test_every_mutant_is_refused() -> None:
    kept = 0
    for mutant in mutants(MUTATED, seed=1):
        try:
            decode(Blob.from_bytes(mutant))
        except CodecError:
            continue
        kept += 1
    assert kept == 0


def test_refusing_takes_no_more_memory_than_the_blob_itself() -> None:
    sample = list(mutants(500, seed=2))
    tracemalloc.start()
    try:
        for mutant in sample:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(CodecError):
                Blob.from_bytes(mutant)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 2 * len(mutant) + 64 * 1024
    finally:
        tracemalloc.stop()


def forged(rng: Generator, data: bytes) -> bytes:
    """A blob with another payload, shape or bound, and checksums that are right."""
    length = PREFIX.unpack_from(data)[2]
    header = json.loads(data[PREFIX.size : PREFIX.size + length])
    payload = data[PREFIX.size + length :]
    what = rng.integers(4)
    if what == 0:
        payload = MUTATIONS[rng.integers(6)](rng, payload + b"\0" * PREFIX.size, b"")
    elif what == 1:
        header["shape"] = [int(size) for size in 2 ** rng.integers(0, 41, rng.integers(0, 4))]
    elif what == 2:
        header["dtype"] = ("bf16", "fp16", "f32")[rng.integers(3)]
    else:
        header["codec_bound"] = float(10.0 ** rng.integers(-60, 60))
    header["payload_bytes"], header["payload_crc32"] = len(payload), zlib.crc32(payload)
    text = json.dumps(header).encode()
    return PREFIX.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text + payload


@pytest.mark.parametrize("name", OURS)
def test_a_forged_blob_is_refused_or_decodes_to_its_shape(name: str) -> None:
    rng = np.random.default_rng(3)
    codec, refused = codec_named(name), 0
    originals = [
        encode(weights_like(*shape, dtype=dtype), codec, 2.0**-8).to_bytes()
        for dtype in DTYPES
        for shape in ((33,), (7, 40))
    ]
    for number in range(FORGED):
        data = forged(rng, originals[number % len(originals)])
        try:
            with np.errstate(all="ignore"):
                blob = Blob.from_bytes(data)
                weights = decode(blob)
        except CodecError:
            refused += 1
            continue
        assert tuple(weights.shape) == blob.header.shape
        assert weights.dtype == blob.torch_dtype
    assert 0 < refused < FORGED


def test_sizes_that_no_memory_holds_are_refused() -> None:
    data = encode(weights_like(64), codec_named("cuszp"), 2.0**-8).to_bytes()
    length = PREFIX.unpack_from(data)[2]
    header = json.loads(data[PREFIX.size : PREFIX.size + length])
    for shape in ([2**62, 4], [2**40, 2**40], [10**30]):
        text = json.dumps({**header, "shape": shape}).encode()
        prefix = struct.pack("<4sHII", MAGIC, VERSION, len(text), zlib.crc32(text))
        with pytest.raises(CodecError):
            decode(Blob.from_bytes(prefix + text + data[PREFIX.size + length :]))


def test_the_originals_are_accepted() -> None:
    for data in blobs():
        assert torch.isfinite(decode(Blob.from_bytes(data))).all()
