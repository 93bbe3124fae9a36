"""The inner loops of cuSZp, compiled by numba without the GIL and without fast math.

The float32 steps are rounded one by one: a fused multiply-add would give other bytes.
"""

import numba
import numpy as np
import numpy.typing as npt

_BYTE = np.arange(256, dtype=np.uint64)[:, None]
# Row b spreads the bits of byte b over eight byte lanes, most significant bit in the lowest lane.
LANES = (
    ((_BYTE >> np.arange(7, -1, -1, dtype=np.uint64)) & 1) << (8 * np.arange(8, dtype=np.uint64))
).sum(axis=1, dtype=np.uint64)


@numba.njit(nogil=True, cache=True)
def encode_fixed(
    values: npt.NDArray[np.float32],
    inverse: np.float32,
    rate_area: int,
    stream: npt.NDArray[np.uint8],
) -> int:
    """Write rates and payloads of mode FIXED.

    Args:
        values: [count] float32.
        inverse: float32(0.5 / bound).
        rate_area: bytes of rates, a multiple of 1024, zeroed by the caller.
        stream: [rate_area + 128 * blocks] uint8, overwritten.

    Returns:
        Bytes used.
    """
    count = len(values)
    at = rate_area
    magnitude = np.empty(32, np.uint32)
    half = np.float32(0.5)
    for block in range((count + 31) // 32):
        signs = np.uint32(0)
        union = np.uint32(0)
        for lane in range(32):
            index = block * 32 + lane
            quantum = np.int32(0)
            if index < count:
                quotient = np.float32(values[index] * inverse)
                shifted = np.float32(quotient + half)
                quantum = _truncated(shifted)
                if not quotient >= -half:
                    quantum = np.int32(quantum - np.int32(1))
            if quantum < 0:
                signs |= np.uint32(1) << np.uint32(31 - lane)
                quantum = np.int32(-quantum)
            magnitude[lane] = np.uint32(quantum)
            if quantum > 0:
                union |= np.uint32(quantum)
        rate = 0
        while rate < 31 and union >> np.uint32(rate):
            rate += 1
        stream[block] = rate
        if rate == 0:
            continue
        _store_word(stream, at, signs)
        at += 4
        for plane in range(rate):
            word = np.uint32(0)
            for lane in range(32):
                bit = (magnitude[lane] >> np.uint32(plane)) & np.uint32(1)
                word |= bit << np.uint32(31 - lane)
            _store_word(stream, at, word)
            at += 4
    return at


@numba.njit(nogil=True, cache=True)
def _truncated(value: np.float32) -> np.int32:
    """Toward zero, clamped to int32, NaN to 0: the float-to-int rule of PTX."""
    if np.isnan(value):
        return np.int32(0)
    if value >= np.float32(2147483648.0):
        return np.int32(2147483647)
    if value <= np.float32(-2147483648.0):
        return np.int32(-2147483648)
    return np.int32(value)


@numba.njit(nogil=True, cache=True)
def _store_word(stream: npt.NDArray[np.uint8], at: int, word: np.uint32) -> None:
    """Big-endian, so that element 0 is the most significant bit of the first byte."""
    stream[at] = word >> np.uint32(24)
    stream[at + 1] = (word >> np.uint32(16)) & np.uint32(255)
    stream[at + 2] = (word >> np.uint32(8)) & np.uint32(255)
    stream[at + 3] = word & np.uint32(255)


@numba.njit(nogil=True, cache=True)
def size_fixed(stream: npt.NDArray[np.uint8], rate_area: int, blocks: int) -> int:
    """Bytes that a stream must have by its rates; -1 where a rate is none that an encoder writes.

    Args:
        stream: at least its rate area, uint8.
        rate_area: bytes of rates.
        blocks: blocks with a real element; the rates after them are 0.
    """
    size = rate_area
    for block in range(rate_area):
        rate = int(stream[block])
        if rate > 31 or (rate > 0 and block >= blocks):
            return -1
        if rate > 0:
            size += 4 + 4 * rate
    return size


@numba.njit(nogil=True, cache=True)
def decode_fixed(
    stream: npt.NDArray[np.uint8],
    rate_area: int,
    bound: np.float32,
    values: npt.NDArray[np.float32],
) -> None:
    """Read mode FIXED; the caller has checked rates and sizes.

    Each byte of a plane is looked up as eight byte lanes, so eight elements are filled at a time.

    Args:
        stream: the whole stream, uint8.
        rate_area: bytes of rates.
        bound: the bound as float32.
        values: [count] float32, overwritten.
    """
    count = len(values)
    at = rate_area
    two = np.float32(2.0)
    lanes = np.empty((4, 4), np.uint64)  # [group of 8 elements, group of 8 planes]
    for block in range((count + 31) // 32):
        first = block * 32
        last = min(first + 32, count)
        rate = int(stream[block])
        if rate == 0:
            for index in range(first, last):
                values[index] = np.float32(0.0)
            continue
        lanes[:] = np.uint64(0)
        for plane in range(rate):
            base = at + 4 + 4 * plane
            high, low = plane >> 3, np.uint64(plane & 7)
            for group in range(4):
                lanes[group, high] |= LANES[stream[base + group]] << low
        signs = (
            LANES[stream[at]],
            LANES[stream[at + 1]],
            LANES[stream[at + 2]],
            LANES[stream[at + 3]],
        )
        for group in range(4):
            low, negative = lanes[group, 0], signs[group]
            for lane in range(8):
                index = first + 8 * group + lane
                if index >= last:
                    break
                shift = np.uint64(8 * lane)
                magnitude = (low >> shift) & np.uint64(255)
                if rate > 8:
                    magnitude |= ((lanes[group, 1] >> shift) & np.uint64(255)) << np.uint64(8)
                    magnitude |= ((lanes[group, 2] >> shift) & np.uint64(255)) << np.uint64(16)
                    magnitude |= ((lanes[group, 3] >> shift) & np.uint64(255)) << np.uint64(24)
                sign = np.int32((negative >> shift) & np.uint64(1))
                quantum = (np.int32(magnitude) ^ np.int32(-sign)) + sign
                values[index] = np.float32(np.float32(np.float32(np.int32(quantum)) * bound) * two)
        at += 4 + 4 * rate
