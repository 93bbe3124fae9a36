"""What was measured of each expert of a checkpoint, noted in a folder so that it can be resumed."""

from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offsim.errors import FormatError, InputError
from offsim.files import check_writable, first_problem, read_json, read_text, replacing, write_json

VERSION = 1
DESIGN, ROWS = "experts.json", "experts"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Design(_Strict):
    """What was asked of a folder with measured experts; how many of them is not a part of it.

    Attributes:
        weights: name of the checkpoint.
        layers: MoE layers.
        experts: of a layer.
        crc32: of the weights of the first expert that the seed draws.
        codecs: as users write them.
        bounds: as users write them.
        repeats: of each timing.
        seed: of the sample.
    """

    format: Literal["offsim-expert-sample"] = "offsim-expert-sample"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    weights: str
    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    crc32: int = Field(ge=0, lt=1 << 32)
    codecs: tuple[str, ...]
    bounds: tuple[str, ...]
    repeats: int = Field(ge=1)
    seed: int


class Point(_Strict):
    """One codec at one bound on one expert, MEASURED on one thread.

    Attributes:
        codec: its name, with the options that are not the default.
        asked: the bound as it was stated; empty for a codec that takes none.
        bound: absolute, unit of the weights; the largest error where no bound is promised.
        fallbacks: matrices of the three that were stored raw.
        stored_bytes: of the expert, in the dtype in which it was read.
        blob_bytes: of its payloads.
        ideal_bits: entropy of a uniform quantiser under the same bound, bits a weight; None for a
            codec that takes no bound.
        largest_error: in the stored dtype.
        rmse: root of the mean squared error, in the stored dtype.
        copy_s: a copy of the expert into fresh memory.
        encode_s: the codec alone.
        decode_s: into fresh memory.
    """

    codec: str
    asked: str
    bound: float
    fallbacks: int = Field(ge=0, le=3)
    stored_bytes: int = Field(ge=1)
    blob_bytes: int = Field(ge=1)
    ideal_bits: float | None
    largest_error: float
    rmse: float
    copy_s: float = Field(gt=0)
    encode_s: float = Field(gt=0)
    decode_s: float = Field(gt=0)


class Placed(_Strict):
    """What was measured of one expert.

    Attributes:
        layer: MoE layer.
        expert: of it.
    """

    layer: int = Field(ge=0)
    expert: int = Field(ge=0)


class Row(Placed):
    """All points of one expert.

    Attributes:
        points: in the order of the codecs, then of the bounds.
    """

    points: tuple[Point, ...]


class Size(_Strict):
    """One codec at one bound on one expert: its size alone, MEASURED.

    Attributes:
        matrix_bytes: [3] of the payloads of gate, up and down.
        fallbacks: matrices of the three that were stored raw.
        largest_error: in the stored dtype.
    """

    matrix_bytes: tuple[int, int, int]
    fallbacks: int = Field(ge=0, le=3)
    largest_error: float = Field(ge=0, allow_inf_nan=False)


class SizeRow(Placed):
    """All sizes of one expert.

    Attributes:
        sizes: in the order of the codecs and bounds.
    """

    sizes: tuple[Size, ...]


Kind = TypeVar("Kind", bound=Placed)


class Notes(Generic[Kind]):
    """Rows on disk, a file for each layer with a line of JSON for each expert.

    One file for all would be written anew thousands of times.

    Args:
        out: folder; `experts.json` has the design, `experts/` the rows.
        design: of the rows.
        kind: of the rows.

    Raises:
        InputError: the folder cannot be written, or has rows of another design.
        FormatError: its design is not one.
    """

    def __init__(self, out: Path, design: Design, kind: type[Kind]) -> None:
        check_writable(out / ROWS)
        self._out, self._kind = out, kind
        self._rows: dict[int, dict[int, Kind]] = {}
        path = out / DESIGN
        if not path.exists():
            write_json(path, design.model_dump(mode="json"))
            return
        there = read_json(path, Design)
        for field in Design.model_fields:
            old, new = getattr(there, field), getattr(design, field)
            if old != new:
                raise InputError(
                    f"{out}: it holds experts that were measured with the {field} {_text(old)}, "
                    f"not {_text(new)}; give the same or choose another folder"
                )

    def find(self, layer: int, expert: int) -> Kind | None:
        """The row of an expert, if it is there.

        Raises:
            FormatError: a line of the layer's file is not a row of it.
        """
        return self._of(layer).get(expert)

    def add(self, row: Kind) -> None:
        """Note a row."""
        rows = self._of(row.layer)
        rows[row.expert] = row
        with replacing(self._path(row.layer)) as partial:
            lines = "".join(f"{one.model_dump_json()}\n" for one in rows.values())
            partial.write_text(lines, encoding="utf-8")

    def _path(self, layer: int) -> Path:
        return self._out / ROWS / f"layer-{layer:04d}.jsonl"

    def _of(self, layer: int) -> dict[int, Kind]:
        """Rows of a layer by expert.

        Raises:
            FormatError: a line is not a row of this layer.
        """
        if layer in self._rows:
            return self._rows[layer]
        path = self._path(layer)
        rows = {}
        for number, line in enumerate(read_text(path).splitlines() if path.exists() else (), 1):
            try:
                row = self._kind.model_validate_json(line)
            except ValidationError as error:
                raise FormatError(
                    f"{path}: line {number}: {first_problem(error)}; remove the file"
                ) from error
            if row.layer != layer:
                raise FormatError(f"{path}: line {number} is of layer {row.layer}; remove the file")
            rows[row.expert] = row
        self._rows[layer] = rows
        return rows


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
