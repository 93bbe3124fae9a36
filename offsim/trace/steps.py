"""A trace as steps: forward passes over a prompt chunk or over one token."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.trace.format import DECODE, PREFILL, Trace


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass.

    Attributes:
        request: whose it is.
        phase: PREFILL for the whole prompt, DECODE for one token.
        context: tokens of the request before the first one here.
        experts: [tokens, layers, top_k] uint16.
    """

    request: int
    phase: int
    context: int
    experts: npt.NDArray[np.uint16]

    @property
    def tokens(self) -> int:
        """Tokens in the pass."""
        return len(self.experts)


def steps_of(trace: Trace) -> Iterator[Step]:
    """The steps of a trace: requests one after the other, each a prompt and then single tokens."""
    starts = np.flatnonzero(np.diff(trace.request, prepend=trace.request[0] - 1))
    for start, end in zip(starts, [*starts[1:], trace.tokens], strict=True):
        prompt = int((trace.phase[start:end] == PREFILL).sum())
        request = int(trace.request[start])
        if prompt:
            context = int(trace.position[start])
            yield Step(request, PREFILL, context, trace.experts[start : start + prompt])
        for token in range(start + prompt, end):
            context = int(trace.position[token])
            yield Step(request, DECODE, context, trace.experts[token : token + 1])
