"""Recording a trace from a real model, through the experts hook."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.generate import greedy_tokens
from offsim.model.hook import Handler, Resident, handled
from offsim.model.routers import ahead, check_own_choice, router_modules
from offsim.model.sampling import Sampling, likeliest
from offsim.trace.format import DECODE, NOWHERE, PREFILL, Trace, TraceInfo
from offsim.trace.stream import Rows


class Recorder:
    """A handler that notes the router's choice and passes the call on.

    Args:
        inner: runs the experts.
        routers: of all MoE layers; none where nothing is predicted.
        lookahead: how many layers ahead they are asked.

    Attributes:
        passes: per forward pass that was not taken, per layer, ids and weights [tokens, top_k].
        predictions: for each of them, per layer, ids [tokens, lookahead, top_k] that the routers
            of the next layers choose; where `lookahead` is 0, nothing per pass.
    """

    def __init__(
        self, inner: Handler, routers: Sequence[torch.nn.Module] = (), lookahead: int = 0
    ) -> None:
        self.inner, self.routers, self.lookahead = inner, routers, lookahead
        self.passes: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        self.predictions: list[list[torch.Tensor]] = []
        self._checked: set[int] = set()

    def begin(self, _: int) -> None:
        """A forward pass starts."""
        self.passes.append([])
        self.predictions.append([])

    def taken(self, request: int, position: int, phase: int) -> Rows:
        """The rows of the earliest pass that was not taken, which is then forgotten.

        Args:
            request: that the pass belongs to.
            position: of its first token in the request's sequence.
            phase: PREFILL or DECODE.
        """
        layers, predictions = self.passes.pop(0), self.predictions.pop(0)
        ids, weights = (torch.stack(part, 1) for part in zip(*layers, strict=True))
        rows = _rows(request, position, phase, ids, weights)
        if self.lookahead:
            rows["lookahead"] = _ids(torch.stack(predictions, 1))
        return rows

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Note one layer of a pass, then run it."""
        self.passes[-1].append((ids, weights))
        if self.lookahead:
            self.predictions[-1].append(self._predicted(layer, hidden, ids))
        return self.inner(layer, hidden, ids, weights)

    def _predicted(self, layer: int, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Ids [tokens, lookahead, top_k], NOWHERE past the last layer."""
        if layer not in self._checked:  # once: a model may give its router other hidden states
            self._checked.add(layer)
            check_own_choice(self.routers[layer], layer, hidden, ids)
        found = ahead(self.routers, layer, hidden, self.lookahead)
        found += [torch.full_like(ids, NOWHERE)] * (self.lookahead - len(found))
        return torch.stack(found, 1)


def record(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    info: TraceInfo,
    lookahead: int = 0,
    inner: Handler | None = None,
    sampling: Sampling | None = None,
) -> tuple[Trace, list[list[int]]]:
    """Record the router while the model answers prompts, one after the other.

    Args:
        model: with its experts resident, unless `inner` has them.
        prompts: ids of each request, at least one.
        count: tokens written for each, at least one; the last is not computed on, so a request has
            len(prompt) + count - 1 rows.
        info: metadata of the trace.
        lookahead: how many layers ahead the routers are asked with the hidden states that a
            layer's experts are called with; 0 leaves the array out.
        inner: runs the experts; None for those of the model.
        sampling: how tokens are drawn; None for greedy answers.

    Returns:
        The trace, and the tokens written for each request.

    Raises:
        InputError: no prompt, or no token to write; or the routers are to be asked ahead and
            cannot be found or asked.
    """
    rows: list[Rows] = []
    written = record_into(rows.append, model, prompts, count, lookahead, inner, sampling=sampling)
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return Trace(info, **arrays), written


def record_into(
    add: Callable[[Rows], None],
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    count: int,
    lookahead: int = 0,
    inner: Handler | None = None,
    progress: Callable[[], None] = lambda: None,
    stop: Collection[int] = (),
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """The same as `record`, with the rows of each forward pass given away as soon as it is done.

    Args:
        add: takes the rows of a pass.
        model: as for `record`.
        prompts: likewise.
        count: likewise.
        lookahead: likewise.
        inner: likewise.
        progress: called after each pass.
        stop: tokens after which a request is over, with fewer rows then.
        sampling: as for `record`.

    Returns:
        The tokens written for each request.

    Raises:
        InputError: as for `record`.
    """
    if not prompts or count < 1:
        raise InputError(f"a trace of {len(prompts)} prompts and {count} tokens has nothing in it")
    if lookahead < 0:
        raise InputError(f"lookahead is a number of layers, not {lookahead}")
    routers = router_modules(model) if lookahead else []
    recorder = Recorder(Resident(model) if inner is None else inner, routers, lookahead)
    written = []
    with handled(model, recorder):
        for request, prompt in enumerate(prompts):

            def after(step: int, request: int = request, length: int = len(prompt)) -> None:
                position = length + step - 1 if step else 0
                add(recorder.taken(request, position, DECODE if step else PREFILL))
                progress()

            choose = likeliest if sampling is None else sampling.of(request)
            written.append(greedy_tokens(model, prompt, count, recorder.begin, after, stop, choose))
    return written


def _rows(
    request: int, position: int, phase: int, ids: torch.Tensor, weights: torch.Tensor
) -> Rows:
    """The rows of one pass, by name."""
    tokens = len(ids)
    return {
        "experts": _ids(ids),
        "weights": weights.float().cpu().numpy().astype(np.float16),
        "request": np.full(tokens, request, np.int32),
        "position": np.arange(position, position + tokens, dtype=np.int32),
        "phase": np.full(tokens, phase, np.uint8),
    }


def _ids(ids: torch.Tensor) -> npt.NDArray[np.uint16]:
    return ids.cpu().numpy().astype(np.uint16)
