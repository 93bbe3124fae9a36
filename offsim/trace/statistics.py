"""What a trace says about the use of experts."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from offsim.errors import InputError
from offsim.trace.format import DECODE, Trace
from offsim.trace.steps import steps_of


@dataclass(frozen=True, slots=True)
class LayerUse:
    """How one layer uses its experts.

    Attributes:
        layer: index.
        imbalance: activations of the most used expert over the mean, >= 1.
        utilisation: share of experts used at all, 0..1.
        entropy: of the activations, over that of a uniform use, 0..1.
        gini: of the activations, 0 (even) .. 1.
        overlap: share of a token's experts that the token before it (same request) took too.
        chance: that share if experts were drawn evenly: top_k / experts.
        distinct_prefill: mean distinct experts of a prompt pass.
        distinct_decode: mean distinct experts of a decode pass (top_k for one request).
    """

    layer: int
    imbalance: float
    utilisation: float
    entropy: float
    gini: float
    overlap: float
    chance: float
    distinct_prefill: float
    distinct_decode: float


def usage(trace: Trace) -> npt.NDArray[np.int64]:
    """Activations [layers, experts]."""
    counts = np.zeros((trace.layers, trace.info.experts_per_layer), np.int64)
    for layer in range(trace.layers):
        counts[layer] = np.bincount(
            trace.experts[:, layer].ravel(), minlength=trace.info.experts_per_layer
        )
    return counts


def overlap(trace: Trace) -> npt.NDArray[np.float64]:
    """Share of experts that adjacent tokens of a request share, [layers]; NaN without a pair."""
    same = trace.request[1:] == trace.request[:-1]
    before, after = trace.experts[:-1][same], trace.experts[1:][same]
    if not len(before):
        return np.full(trace.layers, np.nan)
    shared = (before[:, :, :, None] == after[:, :, None, :]).any(3).mean(2)
    result: npt.NDArray[np.float64] = shared.mean(0)
    return result


def gini(counts: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of non-negative counts [experts]; 0 where all are zero."""
    total = counts.sum()
    if not total:
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    weighted = float((ranks * np.sort(counts)).sum())
    return 2 * weighted / (len(counts) * float(total)) - (len(counts) + 1) / len(counts)


def entropy(counts: npt.NDArray[np.int64]) -> float:
    """Entropy of counts [experts] over log(experts), 0..1."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(counts))) if len(counts) > 1 else 1.0


def layer_use(trace: Trace) -> list[LayerUse]:
    """Statistics of each layer."""
    counts, shared = usage(trace), overlap(trace)
    distinct: dict[int, list[list[int]]] = {0: [], 1: []}
    for step in steps_of(trace):
        found = [len(np.unique(step.experts[:, layer])) for layer in range(trace.layers)]
        distinct[step.phase].append(found)
    means = {
        phase: np.mean(rows, axis=0) if rows else np.full(trace.layers, np.nan)
        for phase, rows in distinct.items()
    }
    return [
        LayerUse(
            layer=layer,
            imbalance=float(row.max() / row.mean()),
            utilisation=float((row > 0).mean()),
            entropy=entropy(row),
            gini=gini(row),
            overlap=float(shared[layer]),
            chance=trace.top_k / trace.info.experts_per_layer,
            distinct_prefill=float(means[0][layer]),
            distinct_decode=float(means[1][layer]),
        )
        for layer, row in enumerate(counts)
    ]


def use_table(trace: Trace) -> pd.DataFrame:
    """`layer_use` as a table, a row a layer."""
    return pd.DataFrame([asdict(use) for use in layer_use(trace)])


def distinct_together(trace: Trace, requests: int) -> float:
    """Mean distinct experts a layer and step where the first requests decode together.

    Their t-th decode tokens share step t, as far as each of them has one.

    Args:
        trace: the router's decisions.
        requests: how many, at least 1.

    Raises:
        InputError: the trace has fewer, or one of them has no decode token.
    """
    ids = list(dict.fromkeys(trace.request.tolist()))[:requests]
    if len(ids) < requests:
        raise InputError(f"the trace has {len(ids)} requests, not {requests} to decode together")
    decode = trace.phase == DECODE
    rows = [trace.experts[decode & (trace.request == one)] for one in ids]
    steps = min(map(len, rows))
    if not steps:
        raise InputError("one of the requests that are to decode together has no decode token")
    asked = np.zeros((steps, trace.layers, trace.info.experts_per_layer), np.bool_)
    for one in rows:
        np.put_along_axis(asked, one[:steps].astype(np.int64), values=True, axis=2)
    return float(asked.sum(2).mean())


def working_set_ratio(trace: Trace, slots: int) -> float:
    """Mean distinct experts a layer and step over its slots; above 1 a cache thrashes."""
    found = [
        len(np.unique(step.experts[:, layer]))
        for step in steps_of(trace)
        for layer in range(trace.layers)
    ]
    return float(np.mean(found)) / slots
