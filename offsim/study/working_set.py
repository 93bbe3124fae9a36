"""How many experts a stretch of a trace asks for: what a cache would have to hold."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.policy.policy import Policy
from offsim.trace import PREFILL, Trace, steps_of

WINDOWS = (1, 2, 4, 8, 16, 32)
"""Consecutive decode tokens of one request."""
NEAR = 1.25
"""A pool of less than so many cycles is close to the cliff."""


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """Distinct experts that one layer is asked for in a prompt pass, or by some decode tokens.

    Attributes:
        phase: `prefill` or `decode`.
        tokens: consecutive decode tokens of a request; None for a whole prompt.
        layer: index; None for all layers, each for itself.
        median: over the steps or windows, experts.
        p95: likewise.
        largest: likewise.
    """

    phase: str
    tokens: int | None
    layer: int | None
    median: float
    p95: float
    largest: int


def working_sets(trace: Trace) -> list[WorkingSet]:
    """Working sets of prompts and of windows of decode tokens: all layers, then layer by layer.

    A window that no request is long enough for is left out.
    """
    counts: dict[int | None, list[npt.NDArray[np.int64]]] = {
        None: [_distinct(s.experts, s.tokens) for s in steps_of(trace) if s.phase == PREFILL]
    }
    decode = trace.phase != PREFILL
    requests = [trace.experts[decode & (trace.request == one)] for one in np.unique(trace.request)]
    for window in WINDOWS:
        counts[window] = [_distinct(one, window) for one in requests if len(one) >= window]
    found = []
    for tokens, parts in counts.items():
        if parts:
            table = np.concatenate(parts)
            found += [_set_of(tokens, layer, table[:, layer]) for layer in range(trace.layers)]
            found.append(_set_of(tokens, None, table.ravel()))
    return sorted(found, key=lambda one: -1 if one.layer is None else one.layer)


def _distinct(experts: npt.NDArray[np.uint16], tokens: int) -> npt.NDArray[np.int64]:
    """Distinct experts [windows, layers] of all windows of so many tokens."""
    ends = len(experts) - tokens + 1
    columns = []
    for layer in range(experts.shape[1]):
        asked = np.zeros((len(experts) + 1, int(experts.max()) + 1), np.int32)
        asked[np.arange(1, len(experts) + 1)[:, None], experts[:, layer]] = 1
        so_far = asked.cumsum(0)
        columns.append((so_far[tokens:] > so_far[:ends]).sum(1))
    return np.stack(columns, axis=1)


def _set_of(tokens: int | None, layer: int | None, counts: npt.NDArray[np.int64]) -> WorkingSet:
    phase = "prefill" if tokens is None else "decode"
    median, p95 = np.percentile(counts, (50, 95))
    return WorkingSet(phase, tokens, layer, float(median), float(p95), int(counts.max()))


@dataclass(frozen=True, slots=True)
class Cliff:
    """One LRU pool for all layers that is hardly larger than what one token asks for, or smaller.

    Below, each token sweeps the pool before its experts could be asked for again.

    Attributes:
        pool: experts that the pool holds.
        cycle: experts that one token asks for over all layers: where the cliff ends.
    """

    pool: int
    cycle: int

    @property
    def below(self) -> bool:
        """Whether (almost) nothing is hit in decoding."""
        return self.pool < self.cycle


def cliff_of(policy: Policy, trace: Trace) -> Cliff | None:
    """The cliff of a policy, where it is below it or close to it."""
    found = Cliff(sum(policy.pools(trace.layers)), trace.top_k * trace.layers)
    swept = ("lru", "global", "decoded")  # blobs count in bytes
    if (policy.cache, policy.scope, policy.keep) != swept or found.pool >= NEAR * found.cycle:
        return None
    return found
