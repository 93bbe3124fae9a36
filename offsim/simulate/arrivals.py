"""When requests arrive: all at once, at random, evenly, or as a file says. In seconds."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError, InputError
from offsim.files import read_text

Seconds = npt.NDArray[np.float64]
"""[requests] from the beginning of the simulation, in the order in which the trace has them."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
COLUMNS = ["request", "seconds"]
FORMS = "at-once, poisson:RATE (requests a second), even:SPAN (such as 24h) or a CSV file"


def at_once(requests: int) -> Seconds:
    """All at the beginning."""
    return np.zeros(requests)


def poisson(requests: int, per_s: float, seed: int = 0) -> Seconds:
    """One after the other, independently of each other; the gaps are exponential.

    Args:
        requests: how many.
        per_s: mean rate, requests/s, above 0.
        seed: the same seed draws the same.
    """
    return np.random.default_rng(seed).exponential(1 / per_s, requests).cumsum()


def even(requests: int, span_s: float) -> Seconds:
    """Evenly over a span: the first at its beginning, the last one gap before its end."""
    return np.arange(requests, dtype=np.float64) * (span_s / requests)


def from_csv(path: Path, requests: Sequence[int]) -> Seconds:
    """As a file says.

    Args:
        path: CSV with the columns `request`, an id of the trace, and `seconds`; rows in any order.
        requests: ids, in the order in which the trace has them.

    Raises:
        InputError: the file cannot be read.
        FormatError: a line is not of this form, names a request that is not in the trace or was
            named before, or a request is missing.
    """
    found: dict[int, float] = {}
    known = set(requests)
    reader = csv.reader(read_text(path).splitlines(), strict=True)
    try:
        if next(reader, []) != COLUMNS:
            raise FormatError(f"{path}: line 1: the columns are {','.join(COLUMNS)}")
        for cells in filter(None, reader):
            where = f"{path}: line {reader.line_num}"
            request, seconds = _arrival(cells, where)
            if request not in known:
                raise FormatError(f"{where}: there is no request {request} in the trace")
            if request in found:
                raise FormatError(f"{where}: request {request} arrives a second time")
            found[request] = seconds
    except csv.Error as error:
        raise FormatError(f"{path}: line {reader.line_num}: {error}") from error
    missing = [request for request in requests if request not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise FormatError(f"{path}: request {missing[0]}{more} of the trace does not arrive")
    return np.array([found[request] for request in requests], np.float64)


def arrivals_of(text: str, requests: Sequence[int], seed: int = 0) -> Seconds:
    """What a short text asks for: `at-once`, `poisson:RATE`, `even:SPAN` or the path of a CSV.

    Args:
        text: RATE is requests a second; SPAN is seconds, or a number with s, m, h or d after it.
        requests: ids, in the order in which the trace has them.
        seed: of what is drawn.

    Raises:
        InputError: it is none of these, a number is not above zero, or the file is wrong.
    """
    kind, colon, number = text.partition(":")
    if text == "at-once":
        return at_once(len(requests))
    if colon and kind == "poisson":
        return poisson(len(requests), _above_zero(number, text), seed)
    if colon and kind == "even":
        unit = UNITS.get(number[-1:])
        span = _above_zero(number if unit is None else number[:-1], text)
        return even(len(requests), span * (unit or 1))
    if not Path(text).is_file():
        raise InputError(f"arrivals are {FORMS}, not {text!r}")
    return from_csv(Path(text), requests)


def _arrival(cells: Sequence[str], where: str) -> tuple[int, float]:
    """A request and its seconds."""
    if len(cells) != len(COLUMNS):
        raise FormatError(f"{where}: {len(cells)} values where {','.join(COLUMNS)} are expected")
    try:
        request = int(cells[0])
    except ValueError:
        raise FormatError(f"{where}: request {cells[0]!r} is not a whole number") from None
    seconds = _number(cells[1])
    if not seconds >= 0:
        raise FormatError(f"{where}: {cells[1]!r} is not a number of seconds, 0 or more")
    return request, seconds


def _above_zero(number: str, text: str) -> float:
    value = _number(number)
    if not value > 0:
        raise InputError(f"arrivals {text}: {number!r} is not a number above zero")
    return value


def _number(text: str) -> float:
    """A finite number; NaN for what is none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
