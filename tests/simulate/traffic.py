"""Traces of several requests, drawn or of a given length."""

import numpy as np
from hypothesis import strategies as st

from offsim.trace import DECODE, PREFILL, Trace
from offsim.trace.format import TraceInfo


def requests_of(
    lengths: list[tuple[int, int]], layers: int = 2, experts: int = 6, seed: int = 0
) -> Trace:
    """Requests of so many prompt and decode tokens, top-2; their ids are 0, 10, 20 and so on."""
    rng = np.random.default_rng(seed)
    tokens = [prompt + decode for prompt, decode in lengths]
    total = sum(tokens)
    ids = rng.random((total, layers, experts)).argsort(2)[:, :, :2].astype(np.uint16)
    phase = np.repeat([PREFILL, DECODE] * len(lengths), np.ravel(lengths)).astype(np.uint8)
    return Trace(
        TraceInfo(model="toy", experts_per_layer=experts, source="drawn for a test"),
        experts=ids,
        weights=rng.random(ids.shape).astype(np.float16),
        request=np.repeat(np.arange(len(lengths)) * 10, tokens).astype(np.int32),
        position=np.concatenate([np.arange(count) for count in tokens]).astype(np.int32),
        phase=phase,
    )


def lengths() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Prompt and decode tokens of up to five requests, which have at least one token."""
    one = st.tuples(st.integers(0, 5), st.integers(0, 4)).filter(any)
    return st.lists(one, min_size=1, max_size=5)
