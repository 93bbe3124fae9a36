"""cuSZp in numpy, one array operation a step of the specification: slow, short, all modes."""

import numpy as np
import numpy.typing as npt

from offsim.codec.base import Float32

Words = npt.NDArray[np.uint32]


def encode(values: Float32, bound: float, mode: str) -> bytes:
    d = residuals(quanta(values, bound), mode)
    magnitudes = np.where(d < 0, 0 - d.view(np.uint32), d.view(np.uint32))
    counted = magnitudes & np.uint32(0x7FFFFFFF)  # a magnitude of 2^31 counts as none
    rates, payloads = [], []
    for block, words in enumerate(magnitudes):
        signs = np.packbits(d[block] < 0).tobytes()
        planes = int(counted[block].max()).bit_length()
        fewer = int(counted[block, 1:].max()).bit_length()
        head = -(-int(counted[block, 0]).bit_length() // 8)
        together = 4 + 4 * planes if planes else 0
        if mode == "outlier" and together > 4 + 4 * fewer + head:
            rest = words.copy()
            rest[0] = 0
            first = int(words[0]).to_bytes(head, "little")
            rates.append(0x80 | (head - 1) << 5 | fewer)
            payloads.append(first + signs + planes_of(rest, fewer))
        else:
            rates.append(planes)
            payloads.append(signs + planes_of(words, planes) if planes else b"")
    return bytes(rates).ljust(rate_area(len(values)), b"\0") + b"".join(payloads)


def decode(stream: bytes, count: int, bound: float, mode: str) -> Float32:
    blocks = -(-count // 32)
    at = rate_area(count)
    d = np.zeros((blocks, 32), np.uint32)
    for block, rate in enumerate(stream[:blocks]):
        apart = mode == "outlier" and rate >= 128
        head = (rate >> 5 & 3) + 1 if apart else 0
        planes = rate & 31
        if not apart and not planes:
            continue
        bits = np.frombuffer(stream, np.uint8, 4 + 4 * planes, at + head)
        signs, *rows = np.unpackbits(bits.reshape(-1, 4), axis=1).astype(np.uint32)
        for plane, row in enumerate(rows):
            d[block] |= row << np.uint32(plane)
        if apart:
            d[block, 0] = int.from_bytes(stream[at : at + head], "little")
        d[block] = np.where(signs, 0 - d[block], d[block])
        at += head + 4 + 4 * planes
    assert at == len(stream)
    q = d if mode == "fixed" else np.cumsum(d, axis=1, dtype=np.uint32)
    with np.errstate(over="ignore"):
        values = q.view(np.int32).astype(np.float32) * np.float32(bound) * np.float32(2)
    return values.ravel()[:count]


def quanta(values: Float32, bound: float) -> npt.NDArray[np.int32]:
    """Halves away from zero, clamped to int32 before the step down of the negative ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        quotients = values * (np.float32(0.5) / np.float32(bound))
        shifted = np.nan_to_num((quotients + np.float32(0.5)).astype(np.float64), nan=0.0)
    truncated = np.clip(np.trunc(shifted), -(2.0**31), 2.0**31 - 1).astype(np.int64)
    return (truncated - ~(quotients >= -0.5)).astype(np.int32)


def residuals(q: npt.NDArray[np.int32], mode: str) -> npt.NDArray[np.int32]:
    """[blocks, 32]: quanta or their differences; 0 past the last value."""
    blocks = -(-len(q) // 32)
    padded = np.zeros(blocks * 32, np.int32)
    padded[: len(q)] = q
    d = padded.reshape(blocks, 32).copy()
    if mode != "fixed":
        d[:, 1:] -= d[:, :-1].copy()
    d.reshape(-1)[len(q) :] = 0
    return d


def planes_of(words: Words, planes: int) -> bytes:
    """Least significant plane first, 4 bytes each, element 0 in the most significant bit."""
    rows = words >> np.arange(planes, dtype=np.uint32)[:, None] & np.uint32(1)
    return np.packbits(rows.astype(np.uint8), axis=1).tobytes()


def rate_area(count: int) -> int:
    return -(-count // 32768) * 1024
