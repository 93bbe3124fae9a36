"""The log of a run of any engine: a CSV file with a row a decode token (docs/formats.md)."""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError, InputError
from offsim.files import read_text

Floats = npt.NDArray[np.float64]

VERSION = 1
FIRST_LINE = re.compile(r"# offsim-run-log v(\d+)")
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
TIMES = ("wall", "compute", "stall", "io", "mgmt")
"""Columns of time, each in any one of the units: `wall_ms`, `compute_s`."""
COUNTS = ("step", "read_bytes", "hits", "cache_hit_pct")
COLUMNS = (*COUNTS, *(f"{name}_{unit}" for name in TIMES for unit in UNITS))
UNKNOWN_SHARE = -1.0
"""What `cache_hit_pct` has where the engine does not know it."""
ROUNDING = 0.01
"""Share of a token's time by which its parts may exceed it."""


@dataclass(frozen=True)
class RunLog:
    """What an engine noted of each decode token, MEASURED. What it did not note is None.

    Attributes:
        name: of the file.
        wall_s: [tokens] s, above 0.
        compute_s: [tokens] s, neither waiting for experts nor managing them.
        stall_s: [tokens] s that compute waited for experts.
        io_s: [tokens] s that reads took, added up over those in flight at a time.
        mgmt_s: [tokens] s of asking for experts and making room for them.
        read_bytes: [tokens] bytes, whole numbers.
        hits: [tokens] distinct experts that were there when asked for, whole numbers.
        hit_share: [tokens] the same over all that was asked for since the run began, its prompts
            included, 0..1.
    """

    name: str
    wall_s: Floats
    compute_s: Floats | None = None
    stall_s: Floats | None = None
    io_s: Floats | None = None
    mgmt_s: Floats | None = None
    read_bytes: Floats | None = None
    hits: Floats | None = None
    hit_share: Floats | None = None

    @property
    def tokens(self) -> int:
        """Rows."""
        return len(self.wall_s)

    @property
    def waited_s(self) -> Floats | None:
        """[tokens] s that compute stood still for experts; None where the log does not tell.

        Where no stall is noted, as where nothing overlaps, it is what compute and managing leave
        of the whole, or else what the reads took.
        """
        if self.stall_s is not None and self.stall_s.any():
            return self.stall_s
        if self.compute_s is not None:
            return self._left(self.compute_s)
        return self.stall_s if self.io_s is None else self.io_s

    @property
    def computed_s(self) -> Floats | None:
        """[tokens] s of compute: as noted, or what waiting and managing leave of the whole."""
        waited = self.waited_s
        if self.compute_s is not None or waited is None:
            return self.compute_s
        return self._left(waited)

    def _left(self, part: Floats) -> Floats:
        """What a part and managing leave of the whole."""
        managed = 0.0 if self.mgmt_s is None else self.mgmt_s
        return np.maximum(self.wall_s - part - managed, 0.0)


def read_log(path: Path, columns: Mapping[str, str] | None = None) -> RunLog:
    """Read and check a log.

    Args:
        path: CSV file; lines that begin with `#` are left out.
        columns: for names of COLUMNS the file's own ones; the empty text: it is not to be used.

    Raises:
        InputError: the file cannot be read, or a name is not one of COLUMNS.
        FormatError: another version, a column is missing or there in two units, a row is cut or
            has a value that cannot be, steps do not follow each other, or the parts of a token
            take longer than the token.
    """
    lines = read_text(path).removeprefix("\ufeff").splitlines()
    _check_version(lines, path)
    rows = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if len(rows) < 2:
        raise FormatError(f"{path}: no row follows the names of the columns; is the file cut?")
    header = [name.strip() for name in next(csv.reader([rows[0][1]]))]
    places = _places(header, columns or {}, f"{path}:{rows[0][0]}")
    table = [_row(line, len(header), places, f"{path}:{number}") for number, line in rows[1:]]
    values = dict(zip(places, np.array(table).T, strict=True))
    where = [f"{path}:{number}" for number, _ in rows[1:]]
    _check_steps(values.pop("step"), where)
    log = _log(path.name, values)
    _check_parts(log, where)
    return log


def _check_version(lines: list[str], path: Path) -> None:
    found = FIRST_LINE.fullmatch(lines[0].strip()) if lines else None
    if found is not None and int(found[1]) != VERSION:
        raise FormatError(f"{path}:1: version {found[1]} of the log is not known, only {VERSION}")


def _places(header: list[str], own: Mapping[str, str], where: str) -> dict[str, int]:
    """Where each known column stands that the file has and that is to be used."""
    wrong = [name for name in own if name not in COLUMNS]
    if wrong:
        raise InputError(f"a log has no column {wrong[0]!r}; there are {', '.join(COLUMNS)}")
    lacking = [f"{own[name]!r}, to be {name}" for name in own if own[name] not in {*header, ""}]
    if lacking:
        raise FormatError(f"{where}: there is no column {lacking[0]}; it has {', '.join(header)}")
    names = {name: own.get(name, name) for name in COLUMNS}
    places = {name: header.index(theirs) for name, theirs in names.items() if theirs in header}
    for time in TIMES:
        several = [name for name in places if name.rpartition("_")[0] == time]
        if len(several) > 1:
            raise FormatError(
                f"{where}: {' and '.join(several)} say the same; leave one out with "
                f"--column {several[1]}="
            )
    for needed, remedy in (("step", "step"), ("wall", "wall_ms")):
        if not any(name in (needed, *(f"{needed}_{unit}" for unit in UNITS)) for name in places):
            raise FormatError(
                f"{where}: there is no column {remedy}; name the one that it is with "
                f"--column {remedy}=NAME (it has {', '.join(header)})"
            )
    return places


def _row(line: str, width: int, places: dict[str, int], where: str) -> list[float]:
    """The values of the known columns, times in s."""
    fields = next(csv.reader([line]))
    if len(fields) != width:
        raise FormatError(f"{where}: {len(fields)} columns, not {width}; is the file cut?")
    return [_value(name, fields[place].strip(), where) for name, place in places.items()]


def _value(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    time, _, unit = name.rpartition("_")
    needed = name == "step" or time == "wall"
    remedy = "correct the row" if needed else f"correct it, or leave it out with --column {name}="
    if time in TIMES:
        least = "above 0" if time == "wall" else "from 0 on"
        good, what = value >= 0 and (value > 0 or time != "wall"), f"a number of {unit} {least}"
    elif name == "cache_hit_pct":
        good, what = 0 <= value <= 100 or value == UNKNOWN_SHARE, "0 to 100, or -1 for unknown"
    else:
        good, what = value >= 0 and value == math.floor(value), "a whole number from 0 on"
    if not (good and math.isfinite(value)):
        raise FormatError(f"{where}: {name} is {text!r}, not {what}; {remedy}")
    return value * UNITS[unit] if time in TIMES else value


def _check_steps(steps: Floats, where: list[str]) -> None:
    gaps = np.flatnonzero(np.diff(steps) != 1) + 1
    if len(gaps):
        at = int(gaps[0])
        raise FormatError(
            f"{where[at]}: step {steps[at]:.0f} comes after {steps[at - 1]:.0f}; a log has every "
            "token once, in order"
        )


def _log(name: str, values: dict[str, Floats]) -> RunLog:
    share = values.pop("cache_hit_pct", None)
    known = share is not None and not (share == UNKNOWN_SHARE).any()
    columns: dict[str, Any] = {
        f"{column.rpartition('_')[0]}_s" if column.rpartition("_")[0] in TIMES else column: array
        for column, array in values.items()
    }
    return RunLog(name, hit_share=share / 100 if share is not None and known else None, **columns)


def _check_parts(log: RunLog, where: list[str]) -> None:
    """Refuse tokens of which the parts take longer than the whole."""
    waited = log.waited_s if log.compute_s is None else log.stall_s
    parts = [one for one in (log.compute_s, waited, log.mgmt_s) if one is not None]
    total = np.sum([*parts, np.zeros(log.tokens)], axis=0)
    over = np.flatnonzero(total > log.wall_s * (1 + ROUNDING))
    if len(over):
        at = int(over[0])
        raise FormatError(
            f"{where[at]}: compute, waiting and managing take {1e3 * total[at]:g} ms of a token of "
            f"{1e3 * log.wall_s[at]:g} ms, and they do not overlap; leave the one that does out "
            "with --column NAME="
        )
