"""Calibrations that might have been: kept in the file of the one that is, and read from it."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from offsim.calibration.reading import at_size, extra_after
from offsim.calibration.schema import Calibration, CoolingPoint, SizedFigure
from offsim.calibration.uncertainty import Replicates, changed, floats


def replicate(calibration: Calibration, number: int) -> Calibration:
    """One of the calibrations that might have been.

    Only figures differ: `value` of each (p10, p90 and samples stay), and the plain numbers of fits
    and slowdowns. It has no replicates and no inner runs itself.

    Args:
        calibration: with replicates.
        number: 0 to `replicates.count` - 1.

    Raises:
        ValueError: the calibration has no such replicate.
    """
    known = calibration.replicates
    if known is None or not 0 <= number < known.count:
        raise ValueError(f"the calibration has no replicate {number}")
    bare = calibration.model_copy(update={"replicates": None, "inner_runs": []})
    return changed(bare, {path: numbers[number] for path, numbers in known.values.items()})


def replicates_of(calibration: Calibration, others: Sequence[Calibration]) -> Replicates:
    """What a calibration keeps of others of the same machine, model and codecs.

    A table whose rows stand at other sizes, because other samples were put together, is read at
    the sizes of the calibration, as a simulation would read it. Numbers that are the same in all
    are not kept.

    Args:
        calibration: whose file it will be.
        others: at least one.
    """
    own = floats(calibration)
    found = [floats(_read_at(calibration, other)) for other in others]
    columns = {path: tuple(each[path] for each in found) for path in own}
    return Replicates(
        count=len(others),
        # Six digits, as they are written, so that what is read equals what was made.
        values={
            path: tuple(float(f"{value:g}") for value in column)
            for path, column in columns.items()
            if any(value != own[path] for value in column)
        },
    )


def _read_at(own: Any, other: Any) -> Any:
    """A part of another calibration with its tables at the sizes of this one's."""
    if isinstance(own, BaseModel):
        names = type(own).model_fields
        return other.model_copy(
            update={name: _read_at(getattr(own, name), getattr(other, name)) for name in names}
        )
    if not isinstance(own, list) or not own or not isinstance(own[0], BaseModel):
        return other
    if isinstance(own[0], SizedFigure):
        return [_with_seconds(point, at_size(other, point.size)) for point in own]
    if isinstance(own[0], CoolingPoint):
        return [_with_extra(point, extra_after(other, point.idle_s)) for point in own]
    return [_read_at(one, like) for one, like in zip(own, other, strict=True)]


def _with_seconds(point: SizedFigure, seconds: float) -> SizedFigure:
    figure = point.seconds.model_copy(update={"value": seconds})
    return point.model_copy(update={"seconds": figure})


def _with_extra(point: CoolingPoint, seconds: float) -> CoolingPoint:
    return point.model_copy(update={"extra": point.extra.model_copy(update={"value": seconds})})
