"""What a SPEC asks for: its files, read, and its scenarios, each once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsim.errors import InputError
from offsim.files import read_yaml
from offsim.policy.bounds import Bounds
from offsim.study.sweep.design import Given, count_of, fields_of, given
from offsim.study.sweep.hardware import overridden
from offsim.study.sweep.inputs import Inputs, read_inputs
from offsim.study.sweep.scenario import CALIBRATION, HARDWARE, TRACE, Entry, entry_of
from offsim.study.sweep.spec import SweepSpec

BOUNDS = "policy.bounds"


@dataclass(frozen=True)
class Plan:
    """A sweep before it is run.

    Attributes:
        inputs: what the scenarios are about.
        entries: the scenarios, in order, each once.
    """

    inputs: Inputs
    entries: list[Entry]


def planned(path: Path) -> Plan:
    """The sweep of a SPEC.

    Args:
        path: of the SPEC; the files that it names are beside it.

    Raises:
        InputError: a file cannot be read, or the SPEC has a field or a value that no scenario can
            have; what does not go together in a single scenario is an entry with an error.
        FormatError: a file is not what it should be.
    """
    spec = read_yaml(path, SweepSpec)
    try:
        count_of(spec)
        inputs = read_inputs(spec, path.parent)
        _check_hardware(spec, inputs)
        entries = (entry_of(one, inputs) for one in _completed(spec, path.parent))
        return Plan(inputs, list({one.key: one for one in entries}.values()))
    except InputError as error:
        text = str(error)
        raise type(error)(
            text if text.startswith(str(path.parent)) else f"{path}: {text}"
        ) from error


def _completed(spec: SweepSpec, folder: Path) -> Iterator[Given]:
    """What scenarios are given, the only trace or calibration and tables of bounds put in."""
    only: Given = {}
    for field, names in ((TRACE, spec.traces), (CALIBRATION, spec.calibrations)):
        if len(names) == 1:
            only |= dict.fromkeys((field,), *names)
    tables: dict[str, Any] = {}
    for one in given(spec):
        bounds = one.get(BOUNDS)
        if isinstance(bounds, str) and bounds not in tables:
            tables[bounds] = read_yaml(folder / bounds, Bounds).model_dump(mode="json")
        yield only | one | ({BOUNDS: tables[bounds]} if isinstance(bounds, str) else {})


def _check_hardware(spec: SweepSpec, inputs: Inputs) -> None:
    """Refuse a field of hardware that no calibration of the SPEC has."""
    for field in fields_of(spec):
        if field.startswith(f"{HARDWARE}."):
            _check_known(field.removeprefix(f"{HARDWARE}."), inputs.calibrations.values())


def _check_known(path: str, calibrations: Iterable[Any]) -> None:
    refused = None
    for calibration in calibrations:
        try:
            overridden(calibration, {path: 1.0})  # a value that any figure can have
        except InputError as error:
            refused = error
        else:
            return
    if refused is not None:
        raise refused
