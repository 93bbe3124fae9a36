"""How much of an answer is run and asked to prove it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How much is run and asked.

    Attributes:
        requests: that are run; each way answers them in its own words, so that few say little.
        task_requests: of each task, where each has a bound of its own.
        tokens: written for each.
        repeats: of each run, interleaved.
        sequences: of text that are read, half solved tasks and half prose.
        length: tokens of each.
        items: asked of each task, and as many others that bounds of tasks are chosen by.
    """

    requests: int = 8
    task_requests: int = 2
    tokens: int = 24
    repeats: int = 5
    sequences: int = 64
    length: int = 128
    items: int = 100


USUAL = Effort()
"""Minutes on a machine of 2 cores."""
