"""Who shares a step: continuous batching, decided from one step boundary to the next.

No engine and no policy is needed for it, only the time at which each step begins.
"""

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from offsim.errors import InputError
from offsim.simulate.clock import Ints
from offsim.trace import DECODE, PREFILL, Trace


@dataclass(frozen=True, slots=True)
class Batching:
    """How many may share a step.

    Attributes:
        max_batch: requests that are active at the same time, at least 1.
        prompt_tokens: prompt tokens in a step, of all requests together, at least 1; None for
            whole prompts.

    Raises:
        InputError: one of them is below 1.
    """

    max_batch: int = 8
    prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_batch", "prompt_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; at least 1 is needed to get anything done")


class Batch(NamedTuple):
    """One step.

    Attributes:
        rows: [tokens] of the trace: decode tokens by order of admission, then chunks of prompts by
            order of admission.
        requests: [requests in it] whose rows they are, in that order: indices in
            `Batcher.requests`.
        emits: [output tokens] who gets one from this step, in that order.
        phase: PREFILL where it has a prompt token, else DECODE.
    """

    rows: Ints
    requests: list[int]
    emits: list[int]
    phase: int


def earlier_of(trace: Trace, rows: Ints) -> int:
    """Sum over the rows of a step, those of a request together, of what `Costs` calls earlier."""
    request = trace.request[rows]
    starts = np.flatnonzero(np.diff(request, prepend=request[0] - 1))
    counts = np.diff(starts, append=len(rows))
    return int((counts * trace.position[rows[starts]].astype(np.int64)).sum())


class Batcher:
    """Lets requests in and out at step boundaries and gives the steps their rows.

    Args:
        trace: whose rows are computed, each once.
        arrival: [requests] ps, in the order in which the trace has the requests. Who arrives at
            the same time is let in in that order.
        batching: how many may share a step.

    Attributes:
        requests: [requests] their ids.
    """

    def __init__(self, trace: Trace, arrival: Sequence[int], batching: Batching) -> None:
        starts = np.flatnonzero(np.diff(trace.request, prepend=trace.request[0] - 1))
        prompts = np.add.reduceat(trace.phase == PREFILL, starts, dtype=np.int64)
        self.requests: Ints = trace.request[starts].astype(np.int64)
        self._arrival = arrival
        self._batching = batching
        self._next: list[int] = starts.tolist()  # row of each
        self._decode: list[int] = (starts + prompts).tolist()  # first decode row of each
        self._end: list[int] = [*starts[1:].tolist(), trace.tokens]
        self._coming = deque(sorted(range(len(starts)), key=arrival.__getitem__))
        self._active: list[int] = []  # by order of admission

    def begin(self, now: int) -> int | None:
        """When the step begins that follows a boundary at `now`, ps; None: there is none left."""
        if self._active:
            return now
        return max(now, self._arrival[self._coming[0]]) if self._coming else None

    def step(self, begin: int) -> Batch:
        """The step that begins at a time, ps; who gets its last token from it is gone after it.

        Raises:
            ValueError: nobody is there at that time.
        """
        self._admit(begin)
        if not self._active:
            raise ValueError(f"no request is there at {begin} ps")
        decoding = [one for one in self._active if self._next[one] >= self._decode[one]]
        rows = [self._next[one] for one in decoding]
        emits, chunked = list(decoding), []
        left = self._batching.prompt_tokens or sys.maxsize
        for one in self._active:
            first, prompt_end = self._next[one], self._decode[one]
            if first < prompt_end and left:
                last = min(prompt_end, first + left)
                left -= last - first
                rows += range(first, last)
                chunked.append(one)
                self._next[one] = last
                if last == prompt_end:
                    emits.append(one)
        for one in decoding:
            self._next[one] += 1
        self._active = [one for one in self._active if self._next[one] < self._end[one]]
        phase = PREFILL if chunked else DECODE
        return Batch(np.array(rows, np.int64), decoding + chunked, emits, phase)

    def _admit(self, now: int) -> None:
        """Let in who has arrived, in order of arrival, as far as there is room."""
        coming, active = self._coming, self._active
        while coming and len(active) < self._batching.max_batch:
            if self._arrival[coming[0]] > now:
                break
            active.append(coming.popleft())
