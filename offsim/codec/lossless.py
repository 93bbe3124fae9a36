"""Lossless: the bytes of the weights in planes, each compressed by zstd.

    sizes of the compressed planes [itemsize] u64 | planes, each one zstd frame

The exponents of weights repeat and the mantissas do not, so bytes of a kind go together. The sign
is moved from the top of each number to its end; the top byte of a bf16 or a float32 is then just
the exponent. Planes run from the lowest byte to the highest. All numbers are little-endian.
"""

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError, frame_content_size

from offsim.codec.base import Buffer, Codec, Shape
from offsim.errors import CodecError, InputError

LEVELS = range(1, 23)
WORDS: dict[int, np.dtype[Any]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}


class Lossless(Codec):
    """Byte planes under zstd.

    Args:
        level: of zstd, "1" to "22". On weights, 19 gains 3 % over 1 and takes 200 times as long.

    Raises:
        InputError: no such level.
    """

    name = "lossless"
    placement = "host"
    promise = "exact"

    def __init__(self, level: str = "1") -> None:
        if level not in map(str, LEVELS):
            raise InputError(
                f"lossless has no level {level!r}; it has {LEVELS.start} to {LEVELS.stop - 1}"
            )
        self.level = int(level)

    def options(self) -> dict[str, str]:
        """The level of zstd."""
        return {"level": str(self.level)}

    def encode(self, weights: torch.Tensor, bound: float) -> bytes:
        """Compress each plane."""
        words = weights.reshape(-1).view(torch.uint8).numpy().view(WORDS[weights.itemsize])
        turned = words << 1 | words >> (8 * weights.itemsize - 1)
        planes = np.ascontiguousarray(turned.view(np.uint8).reshape(-1, weights.itemsize).T)
        frames = [ZstdCompressor(level=self.level).compress(plane.data) for plane in planes]
        return b"".join((_sizes(len(frames)).pack(*map(len, frames)), *frames))

    def decode(
        self, payload: Buffer, shape: Shape, dtype: torch.dtype, bound: float
    ) -> torch.Tensor:
        """Decompress each plane; its size follows from the shape, not from the frame."""
        count = math.prod(shape)
        frames = _frames(memoryview(payload), dtype.itemsize)
        if any(_content_size(frame) != count for frame in frames):
            raise CodecError(f"lossless: not a stream of {list(shape)} values of {dtype}")
        planes = np.empty((count, dtype.itemsize), np.uint8)
        for place, frame in enumerate(frames):
            planes[:, place] = _decompressed(frame, count)
        words = planes.view(WORDS[dtype.itemsize]).reshape(-1)
        weights = words >> 1 | words << (8 * dtype.itemsize - 1)
        return torch.from_numpy(weights.view(np.uint8)).view(dtype).view(shape)


def _sizes(planes: int) -> struct.Struct:
    """The sizes at the start of a payload."""
    return struct.Struct(f"<{planes}Q")


def _frames(payload: memoryview, planes: int) -> list[memoryview]:
    """The frames of a payload.

    Raises:
        CodecError: their sizes do not add up to the payload.
    """
    head = _sizes(planes)
    sizes = head.unpack_from(payload) if len(payload) >= head.size else ()
    if not sizes or head.size + sum(sizes) != len(payload):
        raise CodecError(f"lossless: {len(payload)} bytes are not {planes} planes; the blob is cut")
    ends = head.size + np.cumsum(sizes)
    return [payload[end - size : end] for end, size in zip(ends.tolist(), sizes, strict=True)]


def _content_size(frame: memoryview) -> int:
    """Bytes that a frame says it decompresses to; -1 where it does not say or is none."""
    try:
        return frame_content_size(frame)
    except ZstdError:
        return -1


def _decompressed(frame: memoryview, count: int) -> npt.NDArray[np.uint8]:
    """The bytes [count] of a frame.

    Raises:
        CodecError: the frame is damaged, or bytes follow it.
    """
    try:
        plane = ZstdDecompressor().decompress(frame, max_output_size=count, allow_extra_data=False)
    except ZstdError as error:
        raise CodecError(f"lossless: a plane is damaged ({error})") from error
    if len(plane) != count:
        raise CodecError(f"lossless: a plane of {len(plane)} bytes where {count} are called for")
    return np.frombuffer(plane, np.uint8)
