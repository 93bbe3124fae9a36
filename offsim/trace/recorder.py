"""Recording a trace from a real model, through the experts hook."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.generate import greedy_tokens
from offsim.model.hook import Handler, Resident, handled
from offsim.trace.format import DECODE, PREFILL, Trace, TraceInfo


class Recorder:
    """A handler that notes the router's choice and passes the call on.

    Attributes:
        passes: per forward pass, per layer, ids and weights [tokens, top_k].
    """

    def __init__(self, inner: Handler) -> None:
        self.inner = inner
        self.passes: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def begin(self, _: int) -> None:
        """A forward pass starts."""
        self.passes.append([])

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Note one layer of a pass, then run it."""
        self.passes[-1].append((ids, weights))
        return self.inner(layer, hidden, ids, weights)


def record(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], count: int, info: TraceInfo
) -> tuple[Trace, list[list[int]]]:
    """Record the router while the model answers prompts greedily, one after the other.

    Args:
        model: with its experts resident.
        prompts: ids of each request, at least one.
        count: tokens written for each, at least one; the last is not computed on, so a request has
            len(prompt) + count - 1 rows.
        info: metadata of the trace.

    Returns:
        The trace, and the tokens written for each request.

    Raises:
        InputError: no prompt, or no token to write.
    """
    if not prompts or count < 1:
        raise InputError(f"a trace of {len(prompts)} prompts and {count} tokens has nothing in it")
    recorder = Recorder(Resident(model))
    written, rows = [], []
    with handled(model, recorder):
        for request, prompt in enumerate(prompts):
            recorder.passes.clear()
            written.append(greedy_tokens(model, prompt, count, before=recorder.begin))
            position = 0
            for step, layers in enumerate(recorder.passes):
                ids, weights = (torch.stack(part, 1) for part in zip(*layers, strict=True))
                rows.append(_rows(request, position, DECODE if step else PREFILL, ids, weights))
                position += len(ids)
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return Trace(info, **arrays), written


def _rows(
    request: int, position: int, phase: int, ids: torch.Tensor, weights: torch.Tensor
) -> dict[str, npt.NDArray[Any]]:
    """The rows of one pass, by name."""
    tokens = len(ids)
    return {
        "experts": ids.cpu().numpy().astype(np.uint16),
        "weights": weights.float().cpu().numpy().astype(np.float16),
        "request": np.full(tokens, request, np.int32),
        "position": np.arange(position, position + tokens, dtype=np.int32),
        "phase": np.full(tokens, phase, np.uint8),
    }
