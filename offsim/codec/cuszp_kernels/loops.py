"""cuSZp's inner loops in numba, without the GIL and without fast math.

What runs where no C compiler was there at installation. The float32 steps are rounded one by one: a
fused multiply-add would give other bytes.
"""

import numba
import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.cuszp_kernels.layout import BLOCK, MODES

SMALL = 1 << 15
"""Values: 128 KiB of float32."""
FIXED, OUTLIER = MODES["fixed"], MODES["outlier"]
PLACE = np.array([8 * (lane >> 3) + 7 - (lane & 7) for lane in range(32)], np.uint32)
"""Bit of each of 32 elements in a plane read as a little-endian word."""


class Loops:
    """The kernels in numba; see `offsim.codec.cuszp_kernels.Kernels`."""

    name = "numba"

    def payload_bytes(self, rates: npt.NDArray[np.uint8], mode: int) -> int:
        """Bytes of the payloads by their rates."""
        return int(_payload_bytes(rates, mode))

    def encode(
        self,
        values: torch.Tensor,
        inverse: float,
        mode: int,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
    ) -> int:
        """Write rates and payloads."""
        return int(_encode(values.float().numpy(), np.float32(inverse), mode, rates, payload))

    def decode(
        self,
        rates: npt.NDArray[np.uint8],
        payload: npt.NDArray[np.uint8],
        bound: float,
        mode: int,
        out: torch.Tensor,
    ) -> None:
        """Read the values."""
        step = np.float32(bound)
        if out.dtype == torch.float32:
            _decode(rates, payload, step, mode, out.numpy())
            return
        values, at = torch.empty(SMALL), 0  # by parts that stay in the caches until they are cast
        for start in range(0, len(out), SMALL):
            part = out[start : start + SMALL]
            own = rates[start // BLOCK : (start + SMALL) // BLOCK]
            end = at + self.payload_bytes(own, mode)
            _decode(own, payload[at:end], step, mode, values[: len(part)].numpy())
            part.copy_(values[: len(part)])
            at = end


@numba.njit(nogil=True, cache=True)
def _payload_bytes(rates: npt.NDArray[np.uint8], mode: int) -> int:
    size = 0
    for rate in rates:
        if (rate & 128 == 0 and rate > 31) or (rate > 31 and mode != OUTLIER):
            return -1
        size += _length(rate)
    return size


@numba.njit(nogil=True, cache=True)
def _length(rate: int) -> int:
    """Bytes of a block; only an outlier block has the highest bit set."""
    if rate & 128:
        return 4 + 4 * (rate & 31) + ((rate >> 5) & 3) + 1
    return 4 + 4 * rate if rate else 0


@numba.njit(nogil=True, cache=True)
def _bits(value: np.uint32) -> int:
    bits = 0
    while bits < 32 and value >> np.uint32(bits):
        bits += 1
    return bits


@numba.njit(nogil=True, cache=True)
def _encode(
    values: npt.NDArray[np.float32],
    inverse: np.float32,
    mode: int,
    rates: npt.NDArray[np.uint8],
    payload: npt.NDArray[np.uint8],
) -> int:
    count = len(values)
    at = 0
    residuals = np.zeros(32, np.int32)
    magnitude = np.empty(32, np.uint64)
    for block in range((count + 31) // 32):
        start = block * 32
        _quantise(values[start : min(start + 32, count)], inverse, mode, residuals)
        union = np.int32(0)
        for lane in range(32):
            size = np.int32(abs(residuals[lane]))
            magnitude[lane] = np.uint32(size)
            union |= max(size, np.int32(0))  # 2^31 stays negative and does not count
        rate, width = _bits(np.uint32(union)), 0
        if mode == OUTLIER:
            rate, width = _with_first_apart(magnitude, rate)
        rates[block] = np.uint8(128 | (width - 1) << 5 | rate if width else rate)
        if rate == 0 and width == 0:
            continue
        for byte in range(width):
            payload[at] = (magnitude[0] >> np.uint64(8 * byte)) & np.uint64(255)
            at += 1
        if width:
            magnitude[0] = np.uint64(0)
        for group in range(4):
            signs = 0
            for lane in range(8):
                signs = signs << 1 | (residuals[8 * group + lane] < 0)
            payload[at + group] = signs
            for plane in range(rate):
                if plane & 7 == 0:
                    rows = _transposed(magnitude, 8 * group, np.uint64(plane))
                payload[at + 4 + 4 * plane + group] = rows & np.uint64(255)
                rows >>= np.uint64(8)
        at += 4 + 4 * rate
    return at


@numba.njit(nogil=True, cache=True)
def _quantise(
    values: npt.NDArray[np.float32],
    inverse: np.float32,
    mode: int,
    residuals: npt.NDArray[np.int32],
) -> None:
    """Residuals of a block; 0 past its values."""
    count = len(values)
    residuals[count:] = 0
    for lane in range(count):
        residuals[lane] = _quantum(values[lane], inverse)
    if mode != FIXED:
        for lane in range(count - 1, 0, -1):
            residuals[lane] = np.int32(residuals[lane] - residuals[lane - 1])


@numba.njit(nogil=True, cache=True)
def _with_first_apart(magnitude: npt.NDArray[np.uint64], rate: int) -> tuple[int, int]:
    """Planes and bytes of element 0 before them, if that is smaller; else the rate and 0."""
    union = np.int32(0)
    for lane in range(1, 32):
        union |= max(np.int32(magnitude[lane]), np.int32(0))
    fewer = _bits(np.uint32(union))
    width = (_bits(np.uint32(magnitude[0])) + 7) // 8
    together = 4 + 4 * rate if rate else 0
    return (fewer, width) if together > 4 + 4 * fewer + width else (rate, 0)


@numba.njit(nogil=True, cache=True)
def _transposed(magnitude: npt.NDArray[np.uint64], first: int, low: np.uint64) -> np.uint64:
    """Eight bits of eight numbers as eight bytes, one a plane (Hacker's Delight, 7-3)."""
    x = np.uint64(0)
    for lane in range(8):
        x = x << np.uint64(8) | (magnitude[first + lane] >> low) & np.uint64(255)
    t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    x ^= t ^ (t << np.uint64(7))
    t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    x ^= t ^ (t << np.uint64(14))
    t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return x ^ t ^ (t << np.uint64(28))


@numba.njit(nogil=True, cache=True)
def _quantum(value: np.float32, inverse: np.float32) -> np.int32:
    """To nearest, halves away from zero; toward zero, clamped and NaN to 0 as PTX has it."""
    quotient = np.float32(value * inverse)
    shifted = np.float32(quotient + np.float32(0.5))
    if np.isnan(shifted):
        whole = np.int32(0)
    elif shifted >= np.float32(2147483648.0):
        whole = np.int32(2147483647)
    elif shifted <= np.float32(-2147483648.0):
        whole = np.int32(-2147483648)
    else:
        whole = np.int32(shifted)
    if not quotient >= np.float32(-0.5):
        whole = np.int32(whole - np.int32(1))
    return whole


@numba.njit(nogil=True, cache=True)
def _decode(
    rates: npt.NDArray[np.uint8],
    payload: npt.NDArray[np.uint8],
    bound: np.float32,
    mode: int,
    values: npt.NDArray[np.float32],
) -> None:
    count = len(values)
    at = 0
    two = np.float32(2.0)
    residuals = np.empty(32, np.int32)
    for block in range((count + 31) // 32):
        start = block * 32
        last = min(start + 32, count)
        rate = int(rates[block])
        if rate == 0:
            values[start:last] = np.float32(0.0)
            continue
        width = ((rate >> 5) & 3) + 1 if rate & 128 else 0
        _residuals(payload, at + width, rate & 31, residuals)
        if width:
            first = np.uint32(0)
            for byte in range(width):
                first |= np.uint32(payload[at + byte]) << np.uint32(8 * byte)
            negative = payload[at + width] & 128
            residuals[0] = np.int32(-np.int32(first)) if negative else np.int32(first)
        if mode != FIXED:
            for lane in range(1, 32):
                residuals[lane] = np.int32(residuals[lane] + residuals[lane - 1])
        for lane in range(last - start):
            quantum = np.float32(residuals[lane])
            values[start + lane] = np.float32(np.float32(quantum * bound) * two)
        at += _length(rate)


@numba.njit(nogil=True, cache=True)
def _residuals(
    payload: npt.NDArray[np.uint8], at: int, rate: int, residuals: npt.NDArray[np.int32]
) -> None:
    """All 32 elements of a plane at a time, in loops that are vectorised."""
    for lane in range(32):
        residuals[lane] = 0
    for plane in range(rate):
        word, shift = _load_word(payload, at + 4 + 4 * plane), np.uint32(plane)
        for lane in range(32):
            residuals[lane] |= np.int32(((word >> PLACE[lane]) & np.uint32(1)) << shift)
    signs = _load_word(payload, at)
    for lane in range(32):
        sign = np.int32((signs >> PLACE[lane]) & np.uint32(1))
        residuals[lane] = (residuals[lane] ^ np.int32(-sign)) + sign


@numba.njit(nogil=True, cache=True)
def _load_word(payload: npt.NDArray[np.uint8], at: int) -> np.uint32:
    return np.uint32(
        np.uint32(payload[at])
        | np.uint32(payload[at + 1]) << np.uint32(8)
        | np.uint32(payload[at + 2]) << np.uint32(16)
        | np.uint32(payload[at + 3]) << np.uint32(24)
    )
