"""Parts of a trace: fewer layers, requests and tokens, and requests put together anew."""

from collections.abc import Sequence

import numpy as np

from offsim.errors import InputError
from offsim.trace.format import NOWHERE, PREFILL, Trace


def cut(
    trace: Trace,
    layers: int | None = None,
    requests: int | None = None,
    tokens: int | None = None,
) -> Trace:
    """The first layers, the first requests and the first steps of each.

    Args:
        trace: any.
        layers: MoE layers; None for all.
        requests: at most so many, at least 1; None for all.
        tokens: output tokens of each request at most, at least 1: its prompt, where it has one,
            gives the first of them, each decode step one. None for all.

    Raises:
        InputError: the trace has fewer layers, or a number is below 1.
    """
    for name, number in (("layers", layers), ("requests", requests), ("tokens", tokens)):
        if number is not None and number < 1:
            raise InputError(f"a part of a trace has at least 1 of its {name}, not {number}")
    if layers is not None and layers > trace.layers:
        raise InputError(f"the trace has {trace.layers} layers, not {layers}; ask for fewer")
    kept = []
    for number in np.unique(trace.request)[:requests]:
        rows = np.flatnonzero(trace.request == number)
        prompt = int((trace.phase[rows] == PREFILL).sum())
        last = None if tokens is None else prompt + tokens - (prompt > 0)
        kept.append(rows[:last])
    rows = np.concatenate(kept)
    depth = trace.layers if layers is None else layers
    info, arrays = trace.info, {name: array[rows] for name, array in trace.arrays().items()}
    for name in ("experts", "weights", "lookahead"):
        if name in arrays:
            arrays[name] = arrays[name][:, :depth]
    if "lookahead" in arrays:
        ahead = np.arange(arrays["lookahead"].shape[2]) + 1
        past = np.add.outer(np.arange(depth), ahead) >= depth
        arrays["lookahead"] = arrays["lookahead"].copy()
        arrays["lookahead"][:, past] = NOWHERE
    if info.layer_bytes is not None:
        info = info.model_copy(update={"layer_bytes": info.layer_bytes[:depth]})
    return Trace(info, **arrays)


def split(trace: Trace) -> list[Trace]:
    """A trace for each request."""
    return [
        Trace(
            trace.info,
            **{name: array[trace.request == number] for name, array in trace.arrays().items()},
        )
        for number in np.unique(trace.request)
    ]


def joined(traces: Sequence[Trace]) -> Trace:
    """Traces of one request each, one after the other; they are numbered from 0.

    Args:
        traces: of one shape, at least one; each may stand several times.
    """
    arrays = {
        name: np.concatenate([trace.arrays()[name] for trace in traces])
        for name in traces[0].arrays()
    }
    lengths = [trace.tokens for trace in traces]
    arrays["request"] = np.repeat(np.arange(len(traces), dtype=np.int32), lengths)
    return Trace(traces[0].info, **arrays)
