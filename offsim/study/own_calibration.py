"""Calibrating on a checkpoint of the user, whose experts memory may not hold."""

from collections.abc import Sequence
from pathlib import Path

from offsim.calibration.expert_sizes import measure_sizes, raw_sizes
from offsim.calibration.schema import Calibration
from offsim.study.calibrate import Effort
from offsim.study.checkpoint import CheckpointSubject
from offsim.study.plan import Progress, part
from offsim.study.prepare import Key
from offsim.study.study import calibrate_alone
from offsim.study.subject import measured_layers

SIZES_TAKE = 0.5
"""Share of the display that sizes have."""
IN_PARTS = (
    "give --experts N: sizes of N experts stand for all then, and times are of the first layers"
)


def calibrate_own(
    subject: CheckpointSubject,
    keys: Sequence[Key],
    effort: Effort,
    progress: Progress = lambda *_: None,
    folder: Path | None = None,
) -> Calibration:
    """Calibrate on all layers of a checkpoint, with all experts in memory.

    Args:
        subject: the checkpoint.
        keys: codecs and bounds; one is raw.
        effort: how much is measured.
        progress: for a display.
        folder: as for `Calibrator`.

    Raises:
        InputError: there is no room, or nothing to measure on.
    """
    subject.check_measurable()
    subject.check_room(keys, IN_PARTS)
    return calibrate_alone(keys, effort, progress, subject, folder=folder)


def calibrate_in_parts(
    subject: CheckpointSubject,
    keys: Sequence[Key],
    effort: Effort,
    count: int,
    notes: Path | None = None,
    progress: Progress = lambda *_: None,
    folder: Path | None = None,
) -> Calibration:
    """Calibrate on a checkpoint without all of its experts in memory.

    Times are MEASURED with the first layers alone, as many as exceed the caches of the CPU and at
    least three: layers are alike. Sizes are of experts of all layers, one in memory at a time.

    Args:
        subject: the checkpoint; its model is cut (`CheckpointSubject.first`).
        keys: codecs and bounds; one is raw.
        effort: how much is measured.
        count: experts whose sizes are measured, drawn evenly over the layers; all where there are
            no more.
        notes: folder in which they are noted, so that the same call goes on after an interruption.
        progress: for a display.
        folder: as for `Calibrator`.

    Returns:
        A calibration of the whole checkpoint. With fewer experts than all, its codecs but raw are
        ESTIMATED.

    Raises:
        InputError: there is no room for the first layers, nothing to measure on, or notes of
            another sample.
        FormatError: a file of the notes is not one.
    """
    subject.check_measurable()
    facts, shape = subject.facts, subject.experts.shape
    first = subject.first(measured_layers(shape))
    first.check_room(keys)
    packed = [key for key in keys if key != ("raw", 0.0)]
    tell = part(progress, 0.0, SIZES_TAKE)
    sizes = []
    if packed:
        sizes = measure_sizes(subject.experts, subject.name, count, packed, notes, tell)
    tell = part(progress, SIZES_TAKE, 1.0)
    found = calibrate_alone(keys, effort, tell, first, folder=folder)
    known = dict(zip(packed, sizes, strict=True)) | {("raw", 0.0): raw_sizes(shape)}
    codecs = [known[key].put_into(figures) for key, figures in zip(keys, found.codecs, strict=True)]
    return found.model_copy(update={"model": facts, "codecs": codecs})
