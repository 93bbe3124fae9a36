"""Files written whole or not at all, and read with an error that names them."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from offsim.errors import FormatError, InputError

Model = TypeVar("Model", bound=BaseModel)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once the block ends without an error.

    Raises:
        InputError: the folder cannot be made or written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another") from error
    finally:
        with suppress(OSError):  # it is gone, or could never be made
            partial.unlink()


def check_writable(folder: Path) -> None:
    """Make a folder and try to write into it, before long work whose result would go there.

    Raises:
        InputError: it cannot be made or written.
    """
    with replacing(folder / ".offsim") as partial:
        partial.touch()
    (folder / ".offsim").unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Text of a UTF-8 file.

    Raises:
        InputError: there is no such file, it cannot be read, or it is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason})") from error


def read_yaml(path: Path, schema: type[Model]) -> Model:
    """Read a YAML file and check it against a schema.

    Raises:
        InputError: the file cannot be read.
        FormatError: not YAML, or a field that the schema does not allow; the first is named.
    """
    return _checked(path, schema, yaml.safe_load, yaml.YAMLError)


def read_json(path: Path, schema: type[Model]) -> Model:
    """Read a JSON file and check it against a schema; raises as `read_yaml`."""
    return _checked(path, schema, json.loads, json.JSONDecodeError)


def write_yaml(path: Path, value: BaseModel) -> None:
    """Write a checked value as YAML in the order of its fields, whole or not at all."""
    data = value.model_dump(mode="json")
    write_text(path, yaml.safe_dump(data, sort_keys=False, width=100))


def _checked(
    path: Path, schema: type[Model], parse: Callable[[str], Any], wrong: type[Exception]
) -> Model:
    text = read_text(path)
    try:
        data = parse(text)
    except wrong as error:
        line = " ".join(str(error).split())
        raise FormatError(f"{path}: cannot be parsed: {line}") from error
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise FormatError(f"{path}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first complaint of pydantic as one sentence that names the field and the value."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    value = repr(first["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{field} is {shown}: {first['msg']}"
