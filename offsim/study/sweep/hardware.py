"""A machine that differs: figures of a calibration set to other values, or multiplied."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from offsim.calibration.schema import Calibration, CodecFigures
from offsim.calibration.uncertainty import changed, floats
from offsim.errors import InputError
from offsim.files import first_problem

TIMES = ".times"
PARTS = frozenset({"link", "compute", "handover", "codecs", "disk"})
IDLE = frozenset({"copies", "residual", "ratio", "largest_error", "bound", "encode_s", "sampled"})
"""Figures by which no simulation goes; to change one would change nothing."""
BLOBS = "blob_bytes"


def overridden(calibration: Calibration, hardware: Mapping[str, float]) -> Calibration:
    """A calibration with other figures.

    Args:
        calibration: of a machine.
        hardware: by path. `link.bytes_per_s` sets a number; `link.bytes_per_s.times` multiplies
            it, or all numbers of the table or part that the path names. A codec is named in place
            of its number, `codecs.cuszp.decode_s`, and stands for all of its bounds; `*` for all
            codecs. With `decode_s` goes `alone_s`. `codecs.cuszp.blob_bytes.times` makes blobs
            larger or smaller.

    Raises:
        InputError: there is no such figure, no simulation goes by it, a table is to be one number,
            or a figure cannot have the value.
    """
    for path, value in hardware.items():
        calibration = _changed(calibration, path, value)
    return calibration


def _changed(calibration: Calibration, path: str, value: float) -> Calibration:
    name, multiplied = path.removesuffix(TIMES), path.endswith(TIMES)
    parts = name.split(".")
    if parts[0] not in PARTS or IDLE.intersection(parts):
        raise InputError(
            f"hardware.{path}: no simulation goes by {name}; change figures of "
            f"{', '.join(sorted(PARTS))}"
        )
    if multiplied and not value > 0:
        raise InputError(f"hardware.{path} is {value:g}; a multiple is above 0")
    if parts[-1] == BLOBS:
        return _with_blobs(calibration, parts, path, value, multiplied)
    known = floats(calibration)
    places = [one for one in _numbered(calibration, parts) if (one in known) or _below(known, one)]
    if not places:
        raise InputError(
            f"hardware.{path}: the calibration has no figure {name}; docs/formats.md names them"
        )
    values: dict[str, float] = {}
    for place in places:
        values |= _values(known, place, value, multiplied, path)
    for at, number in values.items():
        _check(calibration, at, number, path)
    return changed(calibration, values)


def _values(
    known: Mapping[str, float], place: str, value: float, multiplied: bool, path: str
) -> dict[str, float]:
    """New numbers by their paths in the file."""
    paths = [place] if place in known else _below(known, place)
    if not multiplied and len(paths) > 1:
        raise InputError(
            f"hardware.{path} is {len(paths)} numbers; multiply them with hardware.{path}{TIMES}"
        )
    found = {at: known[at] * value if multiplied else value for at in paths}
    for at in list(found):
        if not at.startswith("codecs.") or not at.endswith(".decode_s.value"):
            continue
        alone = at.replace(".decode_s.", ".alone_s.")
        if alone in known and known[at]:
            found.setdefault(alone, known[alone] * found[at] / known[at])
    return found


def _below(known: Mapping[str, float], place: str) -> list[str]:
    return [at for at in known if at.startswith(f"{place}.")]


def _numbered(calibration: Calibration, parts: list[str]) -> Iterator[str]:
    """Paths with the numbers of the codecs that a name stands for."""
    if parts[0] != "codecs" or len(parts) < 2:
        yield ".".join(parts)
        return
    for number in _codecs(calibration, parts[1]):
        yield ".".join(("codecs", str(number), *parts[2:]))


def _codecs(calibration: Calibration, name: str) -> list[int]:
    codecs = calibration.codecs
    return [n for n, one in enumerate(codecs) if name in {"*", one.codec, str(n)}]


def _check(calibration: Calibration, at: str, number: float, path: str) -> None:
    """Refuse a number that the schema does not allow there."""
    *above, last = at.split(".")
    part: Any = calibration
    for name in above:
        part = part[int(name)] if isinstance(part, list) else getattr(part, name)
    if isinstance(part, CodecFigures):
        part = part.model_copy(update={BLOBS: [], "matrix_bytes": None})  # not looked at again
    try:
        type(part).model_validate({**dict(part), last: number})
    except ValidationError as error:
        raise InputError(f"hardware.{path}: {first_problem(error)}") from error


def _with_blobs(
    calibration: Calibration, parts: list[str], path: str, value: float, multiplied: bool
) -> Calibration:
    """Blobs of other sizes, each rounded to whole bytes."""
    wanted = set(_codecs(calibration, parts[1])) if len(parts) == 3 else set()
    if not wanted or not multiplied:
        raise InputError(
            f"hardware.{path}: blobs become larger or smaller with "
            f"hardware.codecs.NAME.{BLOBS}{TIMES}, NAME being a codec of the calibration"
        )
    codecs = [
        _smaller(one, value) if number in wanted else one
        for number, one in enumerate(calibration.codecs)
    ]
    return calibration.model_copy(update={"codecs": codecs})


def _smaller(figures: CodecFigures, times: float) -> CodecFigures:
    matrices = figures.matrix_bytes
    if matrices is None:
        blobs = [[round(size * times) for size in row] for row in figures.blob_bytes]
    else:
        matrices = [[[round(size * times) for size in one] for one in row] for row in matrices]
        blobs = [[sum(parts) for parts in row] for row in matrices]
    sizes = {BLOBS: blobs, "matrix_bytes": matrices, "ratio": figures.ratio / times}
    return figures.model_copy(update=sizes)
