"""The container of one compressed tensor: self-describing and checked before it is decoded.

    magic "OFSB" | version u16 | header bytes u32 | header CRC-32 u32 | header (JSON) | payload

All numbers are little-endian. The header is canonical (sorted keys, no spaces but at its end, where
they move the payload to a round place). It names the codec and its options, the dtype and the shape
of the tensor, the bound asked for and the one given to the codec, and the size and CRC-32 of the
payload.
"""

import json
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offsim.codec.base import Buffer
from offsim.errors import CodecError
from offsim.files import first_problem

MAGIC = b"OFSB"
VERSION = 1
MOST_AXES = 8
MOST_BYTES = 1 << 47
"""Of a tensor: what a process can address on today's CPUs."""
PREFIX = struct.Struct("<4sHII")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "f32": torch.float32}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Header(BaseModel):
    """The JSON part of a blob.

    Attributes:
        codec: its name.
        options: its options.
        dtype: stored dtype, a key of DTYPES.
        shape: of the tensor.
        bound: largest error allowed in the stored dtype, in the unit of the weights.
        codec_bound: the bound that the codec was given, at most `bound` up to rounding.
        payload_bytes: size of the payload.
        payload_crc32: its checksum.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: str
    options: dict[str, str]
    dtype: str = Field(pattern="^(bf16|fp16|f32)$")
    shape: tuple[int, ...] = Field(max_length=MOST_AXES)
    bound: float = Field(ge=0, allow_inf_nan=False)
    codec_bound: float = Field(ge=0, allow_inf_nan=False)
    payload_bytes: int = Field(ge=0)
    payload_crc32: int = Field(ge=0, lt=1 << 32)


@dataclass(frozen=True, slots=True)
class Blob:
    """One compressed tensor. `header.payload_crc32` is that of `payload`."""

    header: Header
    payload: Buffer

    @classmethod
    def of(cls, payload: Buffer, **header: Any) -> "Blob":
        """A blob of a payload, with its size and checksum put into the header."""
        header["payload_bytes"], header["payload_crc32"] = len(payload), zlib.crc32(payload)
        return cls(Header(**header), payload)

    @property
    def nbytes(self) -> int:
        """Bytes that move and that ratios count: the payload (a header has about 200 more)."""
        return len(self.payload)

    @property
    def count(self) -> int:
        """Values in the tensor."""
        return math.prod(self.header.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The stored dtype."""
        return DTYPES[self.header.dtype]

    @property
    def ratio(self) -> float:
        """Stored bytes (of the stored dtype) over payload bytes; infinite for an empty payload."""
        stored = self.count * self.torch_dtype.itemsize
        return stored / self.nbytes if self.nbytes else math.inf

    def to_bytes(self) -> bytes:
        """The container."""
        return head_of(self.header) + bytes(self.payload)

    @classmethod
    def from_bytes(cls, data: Buffer) -> "Blob":
        """Read a container; nothing is decoded before both checksums hold.

        Raises:
            CodecError: not a blob, another version, cut, or damaged.
        """
        header, start = read_head(data)
        blob = cls(header, data[start:])
        blob.check()
        return blob

    def check(self) -> None:
        """Refuse a payload that is not the one that the header is about.

        Raises:
            CodecError: its size or its checksum is another.
        """
        header = self.header
        if (header.payload_bytes, header.payload_crc32) != (self.nbytes, zlib.crc32(self.payload)):
            raise CodecError("the payload of the blob is damaged")


def head_of(header: Header, alignment: int = 1) -> bytes:
    """All of a container that stands before its payload.

    Args:
        header: of the blob.
        alignment: bytes to a multiple of which spaces fill it.
    """
    fields = header.model_dump(mode="json")
    return framed(MAGIC, VERSION, fields, alignment)


def framed(magic: bytes, version: int, fields: dict[str, Any], alignment: int = 1) -> bytes:
    """Magic, version, size, checksum and canonical JSON, filled with spaces to a multiple."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-(PREFIX.size + len(text)) % alignment)
    return PREFIX.pack(magic, version, len(text), zlib.crc32(text)) + text


def unframed(data: Buffer) -> tuple[bytes, int]:
    """The JSON of what `framed` gave, and where it ends; magic and version are the caller's.

    Raises:
        CodecError: it is cut or damaged.
    """
    _, _, length, checksum = PREFIX.unpack_from(data)
    text = bytes(data[PREFIX.size : PREFIX.size + length])
    if len(text) != length or zlib.crc32(text) != checksum:
        raise CodecError("the header of the blob is damaged")
    return text, PREFIX.size + length


def read_head(data: Buffer) -> tuple[Header, int]:
    """The header of the container that `data` begins with, and where its payload begins, bytes.

    Raises:
        CodecError: not a blob, another version, cut, or damaged.
    """
    if len(data) < PREFIX.size or data[:4] != MAGIC:
        raise CodecError("not an offsim blob: the magic bytes are missing")
    version = PREFIX.unpack_from(data)[1]
    if version != VERSION:
        raise CodecError(f"blob of version {version}; this offsim reads version {VERSION}")
    text, end = unframed(data)
    try:
        header = Header.model_validate_json(text)
    except ValidationError as error:
        raise CodecError(f"the header of the blob: {first_problem(error)}") from error
    size = math.prod(header.shape) * DTYPES[header.dtype].itemsize
    if min(header.shape, default=0) < 0 or size > MOST_BYTES:
        raise CodecError(f"the blob says that it has the shape {list(header.shape)}")
    return header, end
