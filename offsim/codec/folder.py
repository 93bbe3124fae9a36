"""A folder of compressed experts: a file for each MoE layer, and an index that is written last.

A folder without `index.json` is unfinished. The index has the checksum of each layer file's own
index, which has those of all payloads; so one small file vouches for every byte of the folder.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offsim.codec.blob import DTYPES
from offsim.codec.expert import ExpertBlob
from offsim.codec.layer_file import LayerFile
from offsim.errors import FormatError
from offsim.files import first_problem, read_text

FORMAT = "offsim-experts"
VERSION = 1
INDEX = "index.json"


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(Strict):
    """What tells checkpoints apart without reading their weights.

    Attributes:
        config_sha256: of `config.json`, in hex; None where there is none.
        files: bytes of each safetensors file, by its name.
    """

    config_sha256: str | None
    files: dict[str, int]


class Job(Strict):
    """What decides every byte of a folder.

    Attributes:
        source: the checkpoint.
        layers: MoE layers.
        experts: of each.
        hidden: width of the residual stream.
        width: inside an expert.
        dtype: of the weights that were compressed, a key of `offsim.codec.blob.DTYPES`.
        stored_bytes: of one expert in the checkpoint.
        codec: its name.
        options: of the codec.
        bounds: a table of bounds (`offsim.policy.bounds.Bounds`, as JSON); None for a codec that
            takes none.
    """

    source: Origin
    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    hidden: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: str = Field(pattern="^(bf16|fp16|f32)$")
    stored_bytes: int = Field(ge=1)
    codec: str
    options: dict[str, str]
    bounds: dict[str, Any] | None

    def about(self, layer: int) -> dict[str, Any]:
        """Header of the file of a layer."""
        return {"format": FORMAT, "job": self.model_dump(mode="json"), "layer": layer}

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one weight in `dtype`."""
        return DTYPES[self.dtype].itemsize

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert in `dtype`."""
        return 3 * self.hidden * self.width * self.dtype_bytes


class Layer(Strict):
    """One file.

    Attributes:
        file: its name.
        bytes: of it.
        payload_bytes: of the payloads in it.
        index_crc32: checksum of its index.
    """

    file: str
    bytes: int = Field(ge=1)
    payload_bytes: int = Field(ge=0)
    index_crc32: int = Field(ge=0, lt=1 << 32)

    @classmethod
    def of(cls, file: LayerFile) -> "Layer":
        """What the index says of a finished file."""
        return cls(
            file=file.path.name,
            bytes=file.nbytes,
            payload_bytes=sum(p.header.payload_bytes for three in file.experts for p in three),
            index_crc32=file.index_crc32,
        )


class Index(Strict):
    """What `index.json` says.

    Attributes:
        job: what decided the bytes.
        layers: files, in the order of the layers.
        bytes: of all these files.
        payload_bytes: of all payloads.
        stored_bytes: of all experts in the checkpoint.
        ratio: stored bytes over payload bytes; None for payloads of no bytes.
    """

    format: Literal["offsim-experts"] = "offsim-experts"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    job: Job
    layers: tuple[Layer, ...]
    bytes: int
    payload_bytes: int
    stored_bytes: int
    ratio: float | None

    @classmethod
    def of(cls, job: Job, layers: tuple[Layer, ...]) -> "Index":
        """With the totals."""
        payload = sum(layer.payload_bytes for layer in layers)
        stored = job.stored_bytes * job.layers * job.experts
        return cls(
            job=job,
            layers=layers,
            bytes=sum(layer.bytes for layer in layers),
            payload_bytes=payload,
            stored_bytes=stored,
            ratio=stored / payload if payload else None,
        )

    def to_text(self) -> str:
        """Sorted JSON with a checksum, always the same for the same index."""
        fields = self.model_dump(mode="json")
        fields["crc32"] = zlib.crc32(_text(fields).encode())
        return _text(fields)

    @classmethod
    def from_text(cls, path: Path, text: str) -> "Index":
        """Read what `to_text` gave.

        Args:
            path: of the file, for errors.
            text: of it.

        Raises:
            FormatError: it is of another version or damaged.
        """
        try:
            fields = json.loads(text)
            if isinstance(fields, dict):
                fields.pop("crc32", None)
            index = cls.model_validate(fields)
        except json.JSONDecodeError as error:
            raise FormatError(f"{path}: cannot be parsed: {error}") from error
        except ValidationError as error:
            raise FormatError(f"{path}: {first_problem(error)}") from error
        if index.to_text() != text:
            raise FormatError(f"{path}: its checksum does not hold")
        return index


class ExpertFolder:
    """A finished folder. Its experts are memory-mapped: the page cache holds what fits.

    Args:
        path: of the folder.

    Attributes:
        index: what `index.json` says.
        files: one a layer.

    Raises:
        FormatError: it is unfinished or of another version, or a file is missing, cut, of another
            folder or damaged where that shows without reading payloads.
        InputError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir() and not (path / INDEX).exists():
            raise FormatError(
                f"{path}: no {INDEX}, so it is not a finished folder of experts; "
                "`offsim compress` makes and finishes one"
            )
        self.index = Index.from_text(path / INDEX, read_text(path / INDEX))
        names = [file_of(layer) for layer in range(self.index.job.layers)]
        if [layer.file for layer in self.index.layers] != names:
            raise FormatError(f"{path / INDEX}: it does not name a file for each layer")
        self.files = [self._opened(layer) for layer in range(self.index.job.layers)]

    def blobs(self) -> list[list[ExpertBlob]]:
        """[layers][experts]; a payload is read, and its checksum looked at, when it is used."""
        experts = range(self.index.job.experts)
        return [[file.blob(expert) for expert in experts] for file in self.files]

    def _opened(self, layer: int) -> LayerFile:
        file = LayerFile(self.path / file_of(layer))
        check_layer(file, self.index.job, layer)
        if Layer.of(file) != self.index.layers[layer]:
            raise FormatError(f"{file.path}: not the file that {INDEX} is about")
        return file


def file_of(layer: int) -> str:
    """The name of the file of a layer."""
    return f"layer-{layer:03}.blobs"


def check_layer(file: LayerFile, job: Job, layer: int) -> None:
    """Refuse a file of another layer or job, or of experts of another shape.

    Raises:
        FormatError: it is one.
    """
    if file.about != job.about(layer) or len(file.experts) != job.experts:
        raise FormatError(f"{file.path}: not layer {layer} of what this folder holds")
    up, down = (job.width, job.hidden), (job.hidden, job.width)
    for expert in file.experts:
        if [part.header.shape for part in expert] != [up, up, down] or any(
            part.header.dtype != job.dtype for part in expert
        ):
            raise FormatError(f"{file.path}: an expert of another shape or dtype")


def write_index(folder: Path, index: Index) -> None:
    """Write `index.json`, whole or not at all, and onto the disk."""
    partial = folder / f"{INDEX}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(index.to_text())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / INDEX)


def _text(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2, sort_keys=True, allow_nan=False) + "\n"
