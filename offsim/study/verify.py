"""Checks a folder of compressed experts: every byte, every decode and, if asked, every bound."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from offsim.codec.folder import INDEX, ExpertFolder, file_of
from offsim.errors import FormatError, RunError
from offsim.study.hands import Hand, Hands

WORK = "offsim.study.encoding:verifying"
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        experts: that were decoded.
        bytes: of the files.
        largest_error: largest |x - x'| of all weights, unit of the weights; None without the
            checkpoint.
        problems: a sentence each; none where all is well.
    """

    experts: int
    bytes: int
    largest_error: float | None
    problems: tuple[str, ...]


def verify(
    folder: Path,
    checkpoint: Path | None,
    jobs: int,
    tell: Progress = lambda what, share: None,
) -> Verified:
    """Look at every byte of a folder, and decode every matrix.

    A program that calls this does so under `if __name__ == "__main__"`.

    Args:
        folder: of `offsim compress`.
        checkpoint: that it was made of, to compare every weight with; None leaves that out.
        jobs: processes, at least 1.
        tell: called with what is done and the share that is done.

    Raises:
        InputError: there is no such folder, or the checkpoint is another or cannot be read.
        RunError: a process died.
    """
    try:
        opened = ExpertFolder(folder)
        for file in opened.files:
            file.check_places()
    except FormatError as error:
        return Verified(0, 0, None, (str(error),))
    job = opened.index.job
    ours = {INDEX, *map(file_of, range(job.layers))}
    problems = [
        f"{path}: not a file of this folder"
        for path in sorted(folder.iterdir())
        if path.name not in ours
    ]
    about = {
        "folder": str(folder),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "job": job.model_dump(mode="json"),
    }
    tasks = deque((layer, one) for layer in range(job.layers) for one in range(job.experts))
    done, largest = 0, 0.0
    busy: dict[Hand, tuple[int, int]] = {}
    with Hands(jobs, WORK, about) as hands:
        while tasks or busy:
            for hand in hands.wait():
                try:
                    message = hand.hear()
                except RunError as error:
                    place = busy.get(hand)
                    over = "at its start" if place is None else f"over layer and expert {place}"
                    raise RunError(f"{error} {over}") from error
                if busy.pop(hand, None) is not None:
                    done += 1
                    largest = max(largest, *message["errors"], 0.0)
                    problems += [message["problem"]] if message["problem"] else []
                    tell(f"{done} experts", done / (job.layers * job.experts))
                if tasks:
                    layer, expert = busy[hand] = tasks.popleft()
                    hand.say({"layer": layer, "expert": expert})
    return Verified(
        done, opened.index.bytes, None if checkpoint is None else largest, tuple(sorted(problems))
    )
