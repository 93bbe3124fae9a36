"""The experts of one MoE layer in a file, compressed: appended to, recovered and memory-mapped.

    magic "OFSL" | version u16 | header bytes u32 | header CRC-32 u32 | header (JSON)
    gate, up and down of expert 0, of expert 1, ...: each a blob container
    index (JSON) | index start u64 | index bytes u32 | index CRC-32 u32 | magic "OFSE"

All numbers are little-endian. Payloads begin at multiples of 64 bytes and experts at multiples of
4096, so that they can be written and read past the page cache: spaces fill headers, zeros follow
payloads. The record of an expert is whole by itself, so that a file which ends anywhere is cut
behind its last whole record and goes on from there. The index has every header and start once more,
so that one expert is found without touching another.
"""

import json
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from offsim.codec.base import Buffer
from offsim.codec.blob import PREFIX, Blob, Header, framed, head_of, read_head, unframed
from offsim.codec.expert import ExpertBlob
from offsim.errors import CodecError, FormatError
from offsim.files import first_problem

MAGIC, END = b"OFSL", b"OFSE"
VERSION = 1
ALIGNMENT = 64
"""Bytes to a multiple of which payloads are moved: a cache line, and enough for a GPU."""
PAGE = 4096
"""Bytes to a multiple of which experts are moved: what any disk wants of direct writes."""
TRAILER = struct.Struct("<QII4s")
MATRICES = 3
MOST_HEADER_BYTES = 1 << 26
"""Of what a header may say of its size before it is read; a table of bounds may be long."""


class Part(BaseModel):
    """Where one matrix is.

    Attributes:
        start: of its payload in the file, bytes.
        header: of its blob.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    header: Header


Expert = tuple[Part, Part, Part]
INDEX = TypeAdapter(tuple[Expert, ...])


class MappedBlob(Blob):
    """A blob in a mapped file. The checksum of its payload is looked at when it is first used.

    Args:
        header: of the blob.
        view: the payload, as the file has it.
        place: where that is, for people.
        whole: whether the checksum is known to hold.
    """

    _view: memoryview
    _place: str
    _whole: bool

    def __init__(self, header: Header, view: memoryview, place: str, whole: bool) -> None:
        values = {"header": header, "_view": view, "_place": place, "_whole": whole}
        for name, value in values.items():
            object.__setattr__(self, name, value)  # a blob is frozen

    @property
    def payload(self) -> Buffer:
        """The payload, read-only and not copied.

        Raises:
            CodecError: it is damaged.
        """
        if not self._whole:
            if zlib.crc32(self._view) != self.header.payload_crc32:
                raise CodecError(f"{self._place}: the payload is damaged")
            object.__setattr__(self, "_whole", True)
        return self._view

    @property
    def nbytes(self) -> int:
        return self.header.payload_bytes


class LayerFile:
    """A finished file of one layer, mapped into memory; nothing is read before it is used.

    Args:
        path: of the file.

    Attributes:
        about: the fields of its header.
        experts: where the gate, up and down of each are.
        nbytes: of the file.
        index_crc32: of its index, which has the checksums of all payloads.

    Raises:
        FormatError: it cannot be read, is of another version, cut or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = _mapped(path)
        self.nbytes = len(self._data)
        self.about, self._first = _read_head(path, self._data)
        text, self._end, self.index_crc32 = _index_text(path, self._data)
        try:
            self.experts = INDEX.validate_json(text)
        except ValidationError as error:
            raise FormatError(f"{path}: its index: {first_problem(error)}") from error
        if _json(self.experts) != text:
            raise FormatError(f"{path}: its index is not as offsim writes it")
        for expert in self.experts:
            for part in expert:
                if not self._first <= part.start <= self._end - part.header.payload_bytes:
                    raise FormatError(f"{path}: its index points out of the file")

    def blob(self, expert: int) -> ExpertBlob:
        """One expert, mapped: no byte of it is read, and no checksum looked at, before its use."""
        return self._blob(expert, whole=False)

    def _blob(self, expert: int, whole: bool) -> ExpertBlob:
        return ExpertBlob(
            tuple(
                MappedBlob(
                    part.header,
                    self._data[part.start : part.start + part.header.payload_bytes],
                    f"{self.path}: expert {expert}, matrix {matrix}",
                    whole,
                )
                for matrix, part in enumerate(self.experts[expert])
            )
        )

    def let_go(self) -> None:
        """Take what was read out of the memory of the process; it is read anew where it is used."""
        mapped = self._data.obj
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def check_places(self) -> None:
        """See that the records fill the file from its header to its index without a gap.

        Raises:
            FormatError: they do not.
        """
        end = self._first
        for expert in self.experts:
            if expert != parts_of([part.header for part in expert], end):
                raise FormatError(f"{self.path}: its index has a gap")
            end = end_of(expert)
        if end != self._end:
            raise FormatError(f"{self.path}: bytes stand between its records and its index")

    def check_record(self, expert: int) -> ExpertBlob:
        """The same, once its record was seen to be what the index says, to the last byte.

        Raises:
            FormatError: it is not.
        """
        parts = self.experts[expert]
        ends = [_end_of(parts[0]), _end_of(parts[1]), end_of(parts)]
        for matrix, (part, end) in enumerate(zip(parts, ends, strict=True)):
            head = head_of(part.header, ALIGNMENT)
            payload_end = part.start + part.header.payload_bytes
            crc32 = zlib.crc32(self._data[part.start : payload_end])
            if (
                bytes(self._data[part.start - len(head) : part.start]) != head
                or crc32 != part.header.payload_crc32
                or any(self._data[payload_end:end])
            ):
                raise FormatError(f"{self.path}: expert {expert}, matrix {matrix} is damaged")
        return self._blob(expert, whole=True)


def layer_head(about: dict[str, Any]) -> bytes:
    """What a file of a layer begins with.

    Args:
        about: JSON values.
    """
    return framed(MAGIC, VERSION, about, PAGE)


def record_of(expert: ExpertBlob) -> list[Buffer]:
    """The bytes of an expert in the file, as parts that are written one after the other."""
    parts: list[Buffer] = []
    for blob in expert.blobs:
        padding = bytes(-blob.nbytes % ALIGNMENT)
        parts += [head_of(blob.header, ALIGNMENT), blob.payload, padding]
    return [*parts, bytes(-sum(map(len, parts)) % PAGE)]


def parts_of(headers: Sequence[Header], start: int) -> Expert:
    """Where the matrices of a record are that starts there, bytes."""
    parts = []
    for header in headers:
        parts.append(Part(start=start + len(head_of(header, ALIGNMENT)), header=header))
        start = _end_of(parts[-1])
    gate, up, down = parts
    return gate, up, down


def end_of(expert: Expert) -> int:
    """Where the record of an expert ends, bytes."""
    return -(-_end_of(expert[-1]) // PAGE) * PAGE


def footer(experts: Sequence[Expert], start: int) -> bytes:
    """What a finished file ends with.

    Args:
        experts: all of the layer.
        start: where the last record ends, bytes.
    """
    text = _json(tuple(experts))
    return text + TRAILER.pack(start, len(text), zlib.crc32(text), END)


def read_about(path: Path) -> dict[str, Any]:
    """The fields of the header of a file, be it finished or not.

    Raises:
        FormatError: it has no whole header, or one of another version.
    """
    return _read_head(path, _mapped(path))[0]


def recovered(path: Path, head: bytes, experts: int) -> list[Expert]:
    """The whole records of an unfinished file of a layer, from the first on.

    Args:
        path: of the file.
        head: with which it begins.
        experts: most that it has.

    Returns:
        Where they are; every checksum of them holds.

    Raises:
        FormatError: it cannot be read.
    """
    found: list[Expert] = []
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(head)) != head:
                return []
            start = len(head)
            while len(found) < experts:
                record = _record(file, start, size)
                if record is None:
                    break
                found.append(record)
                start = end_of(record)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    return found


def _record(file: BinaryIO, start: int, size: int) -> Expert | None:
    """The record that starts there; None where there is no whole one."""
    parts: list[Part] = []
    for matrix in range(MATRICES):
        file.seek(start)
        head = file.read(PREFIX.size)
        if len(head) < PREFIX.size or PREFIX.unpack(head)[2] > MOST_HEADER_BYTES:
            return None
        head += file.read(PREFIX.unpack(head)[2])
        try:
            header, _ = read_head(head)
        except CodecError:
            return None
        parts.append(Part(start=start + len(head), header=header))
        payload_end = parts[-1].start + header.payload_bytes
        start = _end_of(parts[-1])
        if matrix == MATRICES - 1:
            start = end_of((parts[0], parts[1], parts[2]))
        if start > size or head_of(header, ALIGNMENT) != head:
            return None
        payload, padding = file.read(header.payload_bytes), file.read(start - payload_end)
        if zlib.crc32(payload) != header.payload_crc32 or any(padding):
            return None
    return parts[0], parts[1], parts[2]


def _end_of(part: Part) -> int:
    """Where the next container begins."""
    return part.start + -(-part.header.payload_bytes // ALIGNMENT) * ALIGNMENT


def _json(experts: tuple[Expert, ...]) -> bytes:
    """Sorted, since a header that was read has its options in another order than a new one."""
    fields = INDEX.dump_python(experts, mode="json")
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, read-only."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise FormatError(f"{path}: it is empty; compress again")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error


def _read_head(path: Path, data: memoryview) -> tuple[dict[str, Any], int]:
    """The fields of the header, and where the first record begins."""
    if len(data) < PREFIX.size or data[:4] != MAGIC:
        raise FormatError(f"{path}: not a file of offsim experts: the magic bytes are missing")
    version = PREFIX.unpack_from(data)[1]
    if version != VERSION:
        raise FormatError(f"{path}: version {version}; this offsim reads version {VERSION}")
    try:
        text, end = unframed(data)
        about = TypeAdapter(dict[str, Any]).validate_json(text)
    except (CodecError, ValidationError) as error:
        raise FormatError(f"{path}: its header is damaged") from error
    if layer_head(about) != bytes(data[:end]):
        raise FormatError(f"{path}: its header is not as offsim writes it")
    return about, end


def _index_text(path: Path, data: memoryview) -> tuple[bytes, int, int]:
    """The index, where it starts and its checksum."""
    if len(data) < TRAILER.size or data[-4:] != END:
        raise FormatError(f"{path}: it has no end; it is cut or unfinished")
    start, length, checksum, _ = TRAILER.unpack_from(data, len(data) - TRAILER.size)
    if start + length + TRAILER.size != len(data):
        raise FormatError(f"{path}: its end is damaged")
    text = bytes(data[start : start + length])
    if zlib.crc32(text) != checksum:
        raise FormatError(f"{path}: its index is damaged")
    return text, start, checksum
