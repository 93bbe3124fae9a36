"""The groups of rows, in the order in which they are shown."""

from functools import partial
from pathlib import Path

from offsim.cli.probes import codecs, cuda, disk, extras, libraries, machine, models
from offsim.cli.probes.base import Group


def groups(folder: Path | None = None) -> tuple[Group, ...]:
    """All of them.

    Args:
        folder: in which blobs on disk would be; None for that of temporary files.
    """
    return (
        Group("machine", machine.probes),
        Group("libraries", libraries.probes),
        Group("codecs", codecs.probes),
        Group("CUDA", cuda.probes),
        Group("disk", partial(disk.probes, folder)),
        Group("models", models.probes),
        Group("extras", extras.probes),
    )
