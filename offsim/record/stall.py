"""What a wait was for, in whole picoseconds: one function for measured and simulated runs."""

from collections.abc import MutableSequence, Sequence

import numpy as np
import numpy.typing as npt

NEVER = -1
Ints = npt.NDArray[np.int64]


def split_ps(
    start: int, end: int, ends: Ints | Sequence[int], parts: Ints | MutableSequence[int]
) -> None:
    """Add a wait to the stages that its load was in or queued for.

    Plain integers, so that the fast engine can compile it.

    Args:
        start: compute stood still from here, ps.
        end: to here, ps.
        ends: [stages] when the load had left each stage, ps; NEVER where it was not served.
        parts: [stages + 1] ps, added to; the last is what passes between the load's end and
            compute going on.
    """
    since = start
    for stage in range(len(ends)):
        if ends[stage] != NEVER:
            until = min(max(ends[stage], since), end)
            parts[stage] += until - since
            since = until
    parts[len(ends)] += end - since
