"""From the files and options of a command to what it asks about."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from offsim.cli import display

if TYPE_CHECKING:
    from offsim.policy.policy import Policy
    from offsim.study.case import Case


def case_of(
    trace: Path, calibration: Path, policy: "Policy", link: str, profile: Path | None
) -> "Case":
    """Read a trace and a calibration; a note on stderr where the trace is of another codec.

    Args:
        trace: file.
        calibration: file.
        policy: of the options.
        link: as the option has it.
        profile: trace file that the policy learns from, or None.

    Raises:
        InputError: a file is not what it should be, they are of different shapes, the codec and
            bound were not calibrated, or the link is no speed.
    """
    from offsim.calibration.schema import Calibration
    from offsim.cli.policies import link_speed, resolved
    from offsim.files import read_yaml
    from offsim.simulate.simulation import check_shapes
    from offsim.study.case import Case
    from offsim.study.reference import layer_s
    from offsim.trace import load_trace

    speed = link_speed(link)
    recorded = load_trace(trace)
    known = load_trace(profile) if profile is not None else None
    figures = read_yaml(calibration, Calibration)
    check_shapes(recorded, figures)
    figures.codec(*policy.key)  # refuses what was not calibrated before anything is said
    if (recorded.info.codec, recorded.info.bound) not in {("raw", 0.0), policy.key}:
        typer.echo(
            f"offsim: note: the trace is of a model under {recorded.info.codec} "
            f"{recorded.info.bound:g}; routing under {policy.storage} may differ",
            err=True,
        )
    display.note_compiling()
    pace = resolved(speed, lambda: layer_s(figures), figures.model.expert_bytes)
    return Case(recorded, policy, figures, pace, known)
