"""The tensors of a checkpoint folder: which file has which, and reading one at a time.

Only safetensors files are read. Their headers are read once, when the folder is opened; a tensor,
or one slice of it, is read straight into memory of its own, because each new page of a memory map
costs more than the copy.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from offsim.errors import FormatError, InputError
from offsim.files import read_text

CONFIG, INDEX, WHOLE = "config.json", "model.safetensors.index.json", "model.safetensors"
NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors")
PICKLED = ("*.bin", "*.pt", "*.pth")
LENGTH_BYTES = 8
"""Of a safetensors file, before its header: how long that is."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Of what is read."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is.

    Attributes:
        file: that has it.
        dtype: as safetensors writes it, such as BF16.
        shape: of it.
        start: of its bytes in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


class Shards:
    """The tensors of a folder.

    Args:
        folder: `model.safetensors.index.json` and its files, or `model.safetensors`, or any
            other safetensors files; `config.json` may be there.

    Attributes:
        config: of `config.json`; empty where there is none.
        tensors: every tensor by its name.

    Raises:
        InputError: no safetensors file, one that is damaged, cut or missing, or one that the index
            misdescribes.
        FormatError: the index or the config is not JSON as transformers writes it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folder of a checkpoint")
        self.folder = folder
        self.config = config_in(folder / CONFIG) if (folder / CONFIG).exists() else {}
        index = folder / INDEX
        self.tensors: dict[str, Place] = {}
        if index.exists():
            owners = _weight_map(index)
            for name in sorted(set(owners.values())):
                self._add(folder / name)
            self._check(index, owners)
        else:
            for file in _plain_files(folder):
                self._add(file)

    def read(self, name: str, part: int | None = None) -> torch.Tensor:
        """A tensor, or its slice `part` of the first axis, in memory of its own, as stored.

        Raises:
            InputError: its file cannot be read any more, or offsim does not know its dtype.
        """
        place = self.tensors[name]
        if place.dtype not in DTYPES:
            raise InputError(
                f"{place.file}: {name} is stored as {place.dtype}; offsim reads {', '.join(DTYPES)}"
            )
        dtype = DTYPES[place.dtype]
        shape = place.shape if part is None else place.shape[1:]
        # Not of torch, whose aligned memory fits badly where such memory was freed.
        room = np.empty(shape, f"i{dtype.itemsize}")
        start = place.start + (part or 0) * room.nbytes
        _fill(room.reshape(-1).view(np.uint8).data, place.file, start)
        return torch.from_numpy(room).view(dtype)

    def _add(self, file: Path) -> None:
        with opened(file) as tensors:
            starts = _starts(file)
            for name in tensors.keys():  # noqa: SIM118  # not a dict
                place = tensors.get_slice(name)
                if name in self.tensors:
                    raise InputError(
                        f"{file}: it has the tensor {name} that {self.tensors[name].file.name} has "
                        f"too; remove the file that is not of this checkpoint, or add {INDEX}"
                    )
                self.tensors[name] = Place(
                    file, place.get_dtype(), tuple(place.get_shape()), starts[name]
                )

    def _check(self, index: Path, owners: Mapping[str, str]) -> None:
        for name, owner in owners.items():
            if name not in self.tensors or self.tensors[name].file.name != owner:
                raise InputError(
                    f"{self.folder / owner}: it has no tensor {name}, which {index.name} says it "
                    "has; download it again"
                )


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """An open safetensors file, whatever is wrong with it as an error that names it.

    Raises:
        InputError: there is no such file, or it is damaged or cut.
    """
    if not file.is_file():
        raise InputError(_gone(file))
    try:
        with safe_open(file, "pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file, or a cut one ({error})") from error


def _starts(file: Path) -> dict[str, int]:
    """Where the bytes of each tensor of a safetensors file start, by its name."""
    with file.open("rb") as data:
        length = int.from_bytes(data.read(LENGTH_BYTES), "little")
        fields = json.loads(data.read(length))
    fields.pop("__metadata__", None)
    return {
        name: LENGTH_BYTES + length + about["data_offsets"][0] for name, about in fields.items()
    }


def _fill(room: memoryview, file: Path, start: int) -> None:
    """Read bytes of a file, from `start` on, until the room is full.

    Raises:
        InputError: there is no such file, or it has become shorter, or the disk fails.
    """
    try:
        with file.open("rb", buffering=0) as data:
            data.seek(start)
            while len(room):
                count = data.readinto(room)
                if not count:
                    raise InputError(f"{file}: it has been cut since; download it again")
                room = room[count:]
    except FileNotFoundError as error:
        raise InputError(_gone(file)) from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); look at the disk") from error


def _gone(file: Path) -> str:
    return f"{file}: no such file; it is a part of the checkpoint, download it again"


def config_in(path: Path) -> dict[str, Any]:
    """The fields of a `config.json`.

    Raises:
        InputError: it cannot be read.
        FormatError: it is not a JSON object.
    """
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}: cannot be parsed: {error}") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path}: a config is a JSON object, not {type(found).__name__}")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """The file name of each tensor; it is a name only, so no file outside the folder is read."""
    found = config_in(index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise FormatError(f"{index}: weight_map is missing; it says which file has which tensor")
    for name, owner in found.items():
        if not isinstance(owner, str) or Path(owner).name != owner:
            raise FormatError(f"{index}: weight_map.{name} is {owner!r}, not the name of a file")
        if not owner.endswith(".safetensors"):
            raise FormatError(f"{index}: weight_map.{name} is {owner!r}, not a safetensors file")
    return found


def _plain_files(folder: Path) -> list[Path]:
    """The files of a folder without an index."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(file.name for kind in PICKLED for file in folder.glob(kind))
        raise InputError(
            f"{folder}: no .safetensors file in this folder"
            + (
                f", only {pickled[0]}, which is a pickle and could run any program; convert it "
                "with save_pretrained"
                if pickled
                else ""
            )
        )
    for file in files:
        numbered = NUMBERED.fullmatch(file.name)
        if numbered is None:
            continue
        stem, digits, last = numbered[1], len(numbered[2]), numbered[3]
        for number in range(1, int(last) + 1):
            part = folder / f"{stem}-{number:0{digits}d}-of-{last}.safetensors"
            if not part.is_file():
                raise InputError(
                    f"{part}: no such file; it is a part of the checkpoint, download it again"
                )
    return files
