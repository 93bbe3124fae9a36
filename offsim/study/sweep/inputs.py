"""What the scenarios of a sweep are about: traces and calibrations, by name and by content."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import offsim
from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.files import read_yaml
from offsim.study.sweep.spec import SweepSpec
from offsim.trace import Trace, load_trace

ENGINE = ("trace", "policy", "record", "calibration", "simulate")
"""Parts of offsim that decide what a prediction is."""


@dataclass(frozen=True)
class Inputs:
    """Files that a SPEC names, read. They go to each worker once.

    Attributes:
        engine: version of offsim and of the sources that predict.
        traces: by name.
        calibrations: by name.
    """

    engine: str
    traces: Mapping[str, Trace]
    calibrations: Mapping[str, Calibration]

    @cached_property
    def trace_digests(self) -> dict[str | None, str]:
        """SHA-256 of the content of each trace, by name."""
        return {name: trace_digest(trace) for name, trace in self.traces.items()}

    @cached_property
    def calibration_digests(self) -> dict[str, str]:
        """SHA-256 of the content of each calibration, by name."""
        return {
            name: sha256(one.model_dump_json().encode()).hexdigest()
            for name, one in self.calibrations.items()
        }

    @cached_property
    def digest(self) -> str:
        """Of all of it, names and engine included."""
        parts = [self.engine, *map(str, self.trace_digests.items())]
        parts += map(str, self.calibration_digests.items())
        return sha256("\n".join(parts).encode()).hexdigest()


def read_inputs(spec: SweepSpec, folder: Path) -> Inputs:
    """The files of a SPEC.

    Args:
        spec: that names them.
        folder: that they are beside.

    Raises:
        InputError: one cannot be read.
        FormatError: one is not what it should be.
    """
    return Inputs(
        engine_version(),
        {name: load_trace(folder / file) for name, file in spec.traces.items()},
        {name: read_yaml(folder / file, Calibration) for name, file in spec.calibrations.items()},
    )


def engine_version() -> str:
    """Of offsim and of the sources that decide what a prediction is, such as `0.1+1f0a...`."""
    package = Path(offsim.__file__).parent
    found = sha256()
    for part in ENGINE:
        for source in sorted((package / part).rglob("*.py")):
            found.update(source.read_bytes())
    return f"{offsim.__version__}+{found.hexdigest()[:12]}"


def check_engine(engine: str) -> None:
    """Refuse to simulate for a driver that would simulate something else.

    Raises:
        InputError: this process has another offsim.
    """
    if engine != (own := engine_version()):
        raise InputError(
            f"a worker has offsim {own} and the sweep is of {engine}; install the same everywhere"
        )


def trace_digest(trace: Trace) -> str:
    """SHA-256 of what is in a trace, whatever its file looks like."""
    found = sha256(trace.info.model_dump_json().encode())
    for name, array in sorted(trace.arrays().items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
