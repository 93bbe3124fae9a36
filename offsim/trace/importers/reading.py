"""Reading of JSON lines and NumPy arrays with errors that name the line or array."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError, InputError
from offsim.files import read_text

LARGEST = 2**31 - 1
BROKEN_ARRAY = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of a JSONL file, each with its place `file:line`; blank lines are skipped.

    Raises:
        InputError: the file cannot be read.
        FormatError: a line is not a JSON object.
    """
    # Not splitlines: texts in JSON may contain its other line ends.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, record_of(parsed(line, where), where)


def parsed(text: str, where: str) -> Any:
    """JSON of a text.

    Raises:
        FormatError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "a number or nesting too large"
        raise FormatError(f"{where}: not JSON ({reason}); is the file cut?") from error


def record_of(value: Any, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FormatError: the value is something else.
    """
    if not isinstance(value, dict):
        raise FormatError(f"{where}: not a JSON object")
    return value


def integer(record: dict[str, Any], key: str, where: str) -> int:
    """A whole number of a record, 0 to 2^31 - 1.

    Raises:
        FormatError: it is missing or something else.
    """
    if key not in record:
        raise FormatError(f"{where}: {key} is missing")
    value = record[key]
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise FormatError(f"{where}: {key} is {_shown(value)}, not a whole number from 0")
    return value


def maybe_integer(record: dict[str, Any], key: str, where: str) -> int | None:
    """`integer`, or None where it is missing or null."""
    return None if record.get(key) is None else integer(record, key, where)


def expert_ids(value: Any, where: str, axes: int) -> npt.NDArray[np.int64]:
    """Nested lists of whole numbers as an array of so many axes, int64.

    Raises:
        FormatError: the lists are ragged, deeper or flatter, or hold something else.
    """
    try:
        array = np.array(value)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{where}: expert ids are not of one shape") from error
    if array.ndim != axes or not np.issubdtype(array.dtype, np.integer):
        raise FormatError(f"{where}: expert ids are not lists of whole numbers, {axes} deep")
    return array.astype(np.int64)


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a .npz file by name, in the order of the file; of a .npy file, under "".

    Raises:
        InputError: there is no such file.
        FormatError: it is neither, is cut, or holds Python objects, which are never loaded.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            names = list(loaded.files)
            return {name: _member(loaded, name, path) for name in names}
    except FormatError:
        raise
    except BROKEN_ARRAY as error:
        raise FormatError(f"{path}: not a whole .npy or .npz file of plain arrays") from error


def _member(loaded: Any, name: str, path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = loaded[name]
    except BROKEN_ARRAY as error:
        raise FormatError(f"{path}: array {name} is cut or not a plain array") from error
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{path}: {name} is not an array")
    return array


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
