"""A trace seen as lookups: what each layer of each step asks for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.policy.evictions import Key
from offsim.trace import Trace, steps_of


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one layer asks for in one step.

    Attributes:
        layer: index of the MoE layer.
        phase: PREFILL or DECODE.
        accesses: ids by token, then by slot, repeats included.
        weights: [accesses] the router's weights.
        lookahead: at index d - 1, the ids that the gate of MoE layer `layer` + d chose for the
            hidden states of this layer, as `accesses` has them; none for layers past the last,
            none at all where nothing was predicted.
    """

    layer: int
    phase: int
    accesses: list[int]
    weights: list[float]
    lookahead: list[list[int]] = field(default_factory=list)

    def wanted(self) -> list[Key]:
        """The distinct experts, in router order."""
        return [(self.layer, expert) for expert in dict.fromkeys(self.accesses)]


def lookups_of(trace: Trace) -> Iterator[Lookup]:
    """The lookups of a trace: step by step, layer by layer, a prompt as one step."""
    at = 0
    for step in steps_of(trace):
        yield from lookups_at(trace, slice(at, at + step.tokens), step.phase)
        at += step.tokens


def lookups_at(trace: Trace, rows: slice | npt.NDArray[np.int64], phase: int) -> list[Lookup]:
    """[layers] what one step asks for that computes these rows of a trace together, in order."""
    ahead = _ahead(None if trace.lookahead is None else trace.lookahead[rows], trace.layers)
    experts, weights = _by_layer(trace.experts[rows]), _by_layer(trace.weights[rows])
    return [
        Lookup(layer, phase, *columns)
        for layer, columns in enumerate(zip(experts, weights, ahead, strict=True))
    ]


def _by_layer(array: npt.NDArray[Any]) -> list[list[Any]]:
    """From [tokens, layers, top_k] to a list a layer, by token and then by slot."""
    listed: list[list[Any]] = array.swapaxes(0, 1).reshape(array.shape[1], -1).tolist()
    return listed


def _ahead(array: npt.NDArray[Any] | None, layers: int) -> list[list[list[int]]]:
    """From [tokens, layers, distance, top_k] to a list a layer and distance."""
    if array is None:
        return [[] for _ in range(layers)]
    shape = (*array.shape[1:3], -1)
    listed: list[list[list[int]]] = array.transpose(1, 2, 0, 3).reshape(shape).tolist()
    return [rows[: layers - 1 - layer] for layer, rows in enumerate(listed)]


def future_of(trace: Trace) -> list[list[Key]]:
    """The distinct experts of every lookup, in order: what an oracle knows."""
    return [lookup.wanted() for lookup in lookups_of(trace)]


def popularity_of(trace: Trace) -> Counter[Key]:
    """How many lookups asked for each expert."""
    return Counter(key for lookup in lookups_of(trace) for key in lookup.wanted())
