"""`offsim calibrate --model`: a calibration on a checkpoint of the user."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli.own_model import PANEL, OwnModel, experts_wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offsim.calibration.schema import Calibration
    from offsim.cli.display import Tell
    from offsim.runtime.devices import Device
    from offsim.study.calibrate import Effort
    from offsim.study.prepare import Key


@dataclass(frozen=True)
class CalibratedModel(OwnModel):
    """A checkpoint that a calibration is measured on."""

    experts: Annotated[
        str | None,
        typer.Option(
            help="Do not hold all experts in memory: measure sizes on so many, drawn evenly over "
            "the layers, or on all, and times with the first layers.",
            rich_help_panel=PANEL,
        ),
    ] = None
    notes: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which the sizes of --experts are noted one by one, so that the same "
            "command goes on after an interruption.",
            rich_help_panel=PANEL,
        ),
    ] = None

    @property
    def count(self) -> int | None:
        """Experts whose sizes are measured; 0 for all one by one, None for all in memory.

        Raises:
            InputError: an option that lacks another, or not a number of experts.
        """
        from offsim.errors import InputError

        if self.experts is not None and self.model is None:
            raise InputError(
                "--experts is of a checkpoint; give --model and --prompts, or leave it out"
            )
        if self.notes is not None and self.experts is None:
            raise InputError("--notes keeps the sizes that --experts measures; give that too")
        return None if self.experts is None else experts_wanted(self.experts)

    @property
    def given(self) -> dict[str, bool]:
        """Which of the options are given, for `refuse_others`."""
        names = ("model", "prompts", "experts", "notes")
        return {name: getattr(self, name) is not None for name in names}


def calibrate_model(
    given: CalibratedModel,
    keys: "Sequence[Key]",
    effort: "Effort",
    tell: "Tell",
    device: "Device",
    folder: Path | None = None,
) -> "Calibration":
    """Calibrate on the checkpoint of the options.

    Args:
        given: options.
        keys: codecs and bounds; one is raw.
        effort: how much is measured.
        tell: of progress.
        device: that computes.
        folder: on the disk to measure; None: where temporary files are.

    Raises:
        InputError: it cannot be used, or memory does not hold what is asked for.
        FormatError: a file of the notes is not one.
    """
    from offsim.study.own_calibration import calibrate_in_parts, calibrate_own

    count, subject = given.count, given.subject(effort.tokens, device)
    if count is None:
        return calibrate_own(subject, keys, effort, tell, folder)
    shape = subject.experts.shape
    count = count or shape.layers * shape.experts
    return calibrate_in_parts(subject, keys, effort, count, given.notes, tell, folder)
