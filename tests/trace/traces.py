"""Small traces made by hand."""

from typing import Any

import numpy as np

from offsim.trace import Trace
from offsim.trace.format import TraceInfo

INFO = TraceInfo(model="by hand", experts_per_layer=4, source="tests")


def small_arrays() -> dict[str, np.ndarray]:
    """Two requests, 2 layers, top-2 of 4: a prompt of 2 and 2 decodes, a prompt of 1 and 1."""
    return {
        "experts": np.array(
            [
                [[0, 1], [2, 3]],
                [[1, 0], [2, 0]],
                [[1, 3], [0, 2]],
                [[3, 1], [1, 3]],
                [[0, 1], [1, 2]],
                [[2, 3], [1, 2]],
            ],
            np.uint16,
        ),
        "weights": np.tile(np.array([0.75, 0.25], np.float16), (6, 2, 1)),
        "request": np.array([0, 0, 0, 0, 3, 3], np.int32),
        "position": np.array([0, 1, 2, 3, 0, 1], np.int32),
        "phase": np.array([0, 0, 1, 1, 0, 1], np.uint8),
    }


def small_trace(**changes: Any) -> Trace:
    return Trace(INFO, **{**small_arrays(), **changes})


def one_layer(experts: list[list[int]], limit: int, phase: int = 1) -> Trace:
    """One request and layer; a row of ids a token."""
    ids = np.array(experts, np.uint16)[:, None, :]
    count = len(ids)
    return Trace(
        TraceInfo(model="by hand", experts_per_layer=limit, source="tests"),
        experts=ids,
        weights=np.zeros(ids.shape, np.float16),
        request=np.zeros(count, np.int32),
        position=np.arange(count, dtype=np.int32),
        phase=np.full(count, phase, np.uint8),
    )
