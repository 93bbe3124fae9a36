"""Writing a trace of any length with the memory of a part of it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from offsim.errors import InputError
from offsim.files import replacing
from offsim.trace.format import DTYPES, OPTIONAL, Trace, TraceInfo, metadata_of

Rows = dict[str, npt.NDArray[Any]]
"""Some rows of a trace: its arrays by their names, as many rows each."""
PART_TOKENS = 4096
"""Rows that are in memory before they are checked and written."""
ALIGNMENT = 8
"""Bytes of the length of a safetensors header, to whose multiple it is filled up with blanks."""
NAMES = {"int32": "I32", "float16": "F16", "uint16": "U16", "uint8": "U8"}
"""What safetensors calls the dtypes of a trace, in the order in which it writes them."""


class TraceStream:
    """Takes the rows of a trace in the order of its tokens.

    Args:
        info: metadata.
        folder: where the arrays grow, a file each.
        part_tokens: rows that are in memory before they are written.

    Attributes:
        tokens: rows so far.
        requests: that they belong to.
    """

    def __init__(self, info: TraceInfo, folder: Path, part_tokens: int = PART_TOKENS) -> None:
        self.info, self._folder, self._part_tokens = info, folder, part_tokens
        self.tokens = self.requests = 0
        self._waiting: list[Rows] = []
        self._rows = 0
        self._last = -1
        self._inner: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._open = ExitStack()

    def add(self, rows: Rows) -> None:
        """Take the next rows.

        Raises:
            FormatError: the rows of a part do not make a trace.
            OSError: they cannot be written.
        """
        self._waiting.append(rows)
        self._rows += len(rows["experts"])
        if self._rows >= self._part_tokens:
            self._flush()

    def _flush(self) -> None:
        """Write what waits, once it was checked as a trace of its own."""
        if not self._waiting:
            return
        names = self._waiting[0]
        part = {name: np.concatenate([rows[name] for rows in self._waiting]) for name in names}
        arrays = Trace(self.info, **part).arrays()
        if not self._files:
            for name, array in arrays.items():
                self._inner[name] = array.shape[1:]
                path = self._folder / name
                self._files[name] = self._open.enter_context(path.open("wb"))
        for name, array in arrays.items():
            self._files[name].write(np.ascontiguousarray(array).data)
        starts = np.diff(arrays["request"], prepend=self._last) != 0
        self.requests += int(starts.sum())
        self._last = int(arrays["request"][-1])
        self.tokens += self._rows
        self._waiting, self._rows = [], 0

    def close(self) -> None:
        """Close the files; what waits is lost."""
        self._open.close()

    def join(self, path: Path) -> None:
        """Write the trace file, and forget each array once it is in it.

        Raises:
            FormatError: the last rows do not make a trace.
            InputError: there is no row.
            OSError: it cannot be written.
        """
        self._flush()
        self.close()
        if not self.tokens:
            raise InputError("a trace without a token has nothing in it; record some")
        order = list(NAMES)
        dtypes = {name: np.dtype({**DTYPES, **OPTIONAL}[name]) for name in self._inner}
        names = sorted(dtypes, key=lambda name: (order.index(dtypes[name].name), name))
        header: dict[str, Any] = {"__metadata__": metadata_of(self.info)}
        end = 0
        for name in names:
            shape = [self.tokens, *self._inner[name]]
            begin, end = end, end + prod(shape) * dtypes[name].itemsize
            kind = NAMES[dtypes[name].name]
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(ALIGNMENT, "little") + text)
            for name in names:
                part = self._folder / name
                with part.open("rb") as array:
                    shutil.copyfileobj(array, file)
                os.truncate(part, 0)


@contextmanager
def streaming(info: TraceInfo, path: Path, part_tokens: int = PART_TOKENS) -> Iterator[TraceStream]:
    """Within the block rows are taken; at its end, if there is no error, the trace is written.

    While it runs, the arrays are in a folder beside `path`, which a program that is killed leaves
    there; nothing is under the name of the trace before all of it is.

    Args:
        info: metadata.
        path: of the trace file.
        part_tokens: rows that are in memory before they are written.

    Raises:
        InputError: it cannot be written, or there was no row.
        FormatError: the rows of a part do not make a trace.
    """
    with replacing(path) as partial:
        prefix = f".{path.name}."
        with TemporaryDirectory(dir=path.parent, prefix=prefix, suffix=".parts") as folder:
            stream = TraceStream(info, Path(folder), part_tokens)
            try:
                yield stream
                stream.join(partial)
            finally:
                stream.close()
