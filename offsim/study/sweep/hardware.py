"""A machine that differs: figures of a calibration set to other values, or multiplied."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    CoolingPoint,
    Figure,
    ForesightFigures,
    SizedFigure,
)
from offsim.errors import InputError
from offsim.files import first_problem

TIMES, RATE = ".times", "bytes_per_s"
MOST = 1e6
"""Of multiples, and of seconds that are set: the clock of a simulation does not go far beyond."""
PARTS = ("codecs", "compute", "disk", "handover", "link")
IDLE = {"bound", "copies", "encode_s", "largest_error", "matrix_bytes", "ratio", "residual"}
"""Figures by which no simulation goes: another value would change nothing."""
CODECS, BLOBS, MATRICES = PARTS[0], "blob_bytes", "matrix_bytes"
DECODE, ALONE, EVERY = "decode_s", "alone_s", "all"
TIMED: dict[Any, str] = {SizedFigure: "seconds", CoolingPoint: "extra", ForesightFigures: "seconds"}
"""Rows of tables, and which of their fields is the time."""
Change = Callable[[Any], Any]
"""Of a figure into another one."""


def overridden(calibration: Calibration, hardware: Mapping[str, float]) -> Calibration:
    """A calibration with other figures.

    Args:
        calibration: of a machine.
        hardware: by path. `link.bytes_per_s` sets a number; `link.bytes_per_s.times` multiplies
            it, or all times of a table. A codec is called by its name, `codecs.cuszp.decode_s`,
            which stands for all of its bounds; `all` for every codec. What sets `decode_s` changes
            `alone_s` in proportion. `codecs.cuszp.blob_bytes.times` makes blobs larger or smaller.

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
            f"hardware.{path}: no simulation goes by {name}; change a figure of {', '.join(PARTS)}"
        )
    if multiplied and not 1 / MOST <= value <= MOST:
        raise InputError(
            f"hardware.{path} is {value:g}; a multiple is from {1 / MOST:g} to {MOST:g}"
        )
    if not multiplied and value > MOST and parts[-1] != RATE:
        raise InputError(f"hardware.{path} is {value:g}; but for rates, {MOST:g} is the most")
    change: Change = partial(_scaled if multiplied else _set, value)
    try:
        if parts[0] != CODECS:
            new: Calibration = _within(calibration, parts, change)
            return new
        codecs = _codecs(calibration, parts[1:], change)
        return calibration.model_copy(update={CODECS: codecs})
    except ValidationError as error:
        raise InputError(f"hardware.{path}: {first_problem(error)}") from error
    except KeyError as error:
        raise InputError(
            f"hardware.{path}: the calibration has no figure {name}; docs/formats.md names them"
        ) from error
    except TypeError as error:
        raise InputError(
            f"hardware.{path}: {name} is no single number; multiply it with hardware.{name}{TIMES}"
        ) from error


def _within(part: Any, parts: list[str], change: Change) -> Any:
    """A part with one of its figures changed.

    Raises:
        KeyError: it has none of this name.
        TypeError: it is no single number, and a number was to be set.
        ValidationError: it cannot have the value.
    """
    name, *below = parts
    if not isinstance(part, BaseModel) or getattr(part, name, None) is None:
        raise KeyError(name)
    old = getattr(part, name)
    if below:
        return part.model_copy(update={name: _within(old, below, change)})
    new = change(old)
    # What each expert has was looked at when the file was read, and takes long.
    light: dict[str, Any] = {BLOBS: [], MATRICES: None} if isinstance(part, CodecFigures) else {}
    type(part).model_validate({**dict(part), **light, name: new})
    return part.model_copy(update={name: new})


def _codecs(calibration: Calibration, parts: list[str], change: Change) -> list[CodecFigures]:
    """All codecs, those of a name with a figure changed; raises as `_within`."""
    if len(parts) < 2:
        raise KeyError(CODECS)
    name, *below = parts
    if name not in {EVERY, *(one.codec for one in calibration.codecs)}:
        raise KeyError(name)
    return [
        _with_figure(one, below, change) if name in {EVERY, one.codec} else one
        for one in calibration.codecs
    ]


def _with_figure(codec: CodecFigures, parts: list[str], change: Change) -> CodecFigures:
    """A codec with one of its figures changed, and those that go with it."""
    new: CodecFigures = _within(codec, parts, change)
    if parts == [DECODE] and codec.alone_s is not None and codec.decode_s.value:
        times = new.decode_s.value / codec.decode_s.value
        return new.model_copy(update={ALONE: _scaled(times, codec.alone_s)})
    if parts != [BLOBS]:
        return new
    blobs, matrices = new.blob_bytes, codec.matrix_bytes
    if matrices is not None:
        matrices = change(matrices)
        blobs = [[sum(one) for one in row] for row in matrices]
    less = sum(map(sum, blobs)) / max(1, sum(map(sum, codec.blob_bytes)))
    ratio = codec.ratio / less if less else codec.ratio
    return new.model_copy(update={BLOBS: blobs, MATRICES: matrices, "ratio": ratio})


def _set(value: float, old: Any) -> Any:
    if isinstance(old, Figure):
        return Figure(label=old.label, value=value, p10=value, p90=value, samples=1)
    if isinstance(old, float):
        return value
    raise TypeError if isinstance(old, list) else KeyError


def _scaled(times: float, old: Any) -> Any:
    if isinstance(old, float | int):
        return round(old * times) if isinstance(old, int) else old * times
    if isinstance(old, Figure):
        numbers = {name: getattr(old, name) * times for name in ("value", "p10", "p90")}
        return Figure(label=old.label, samples=old.samples, **numbers)
    if isinstance(old, list):
        return [_scaled(times, one) for one in old]
    if type(old) not in TIMED:
        raise KeyError
    time = TIMED[type(old)]
    return old.model_copy(update={time: _scaled(times, getattr(old, time))})
