"""A real run that a recorded trace drives, through the same handler as a model's own.

The trace says which experts each layer of each step takes, with which weights, and what the gates
of later layers would have chosen. The experts are generated, and so is what is computed between
them. What is decided, moved, decoded and computed is decided, moved, decoded and computed.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch

from offsim.errors import InputError
from offsim.model.experts import ExpertShape
from offsim.policy.lookup import Lookup, lookups_at
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.runtime.arena import Arena
from offsim.runtime.devices import CPU, Device
from offsim.runtime.handler import Offloaded
from offsim.runtime.run import Run, offloaded
from offsim.runtime.store import ExpertStore
from offsim.testbed.generated import GeneratedModel
from offsim.trace import Trace, steps_of
from offsim.units import show_bytes

SHARE_OF_MEMORY = 0.75
"""Of the machine's, that a run may take where nothing is said."""
USUAL_MEMORY = 16 << 30
"""Bytes of a machine that does not tell."""


def run_driven(
    model: GeneratedModel,
    store: ExpertStore,
    policy: Policy,
    trace: Trace,
    link_bytes_per_s: float | None = None,
    progress: Callable[[], None] = lambda: None,
    profile: Trace | None = None,
    folder: Path | None = None,
    device: Device = CPU,
) -> Run:
    """Run the steps of a trace one after the other with generated experts offloaded.

    A program calls this under `if __name__ == "__main__"`, as `run_offloaded`.

    Args:
        model: what is computed; it may have more layers than the trace.
        store: its experts in host memory, under the policy's codec and bound, as many layers as
            the trace has.
        policy: codec and bound, cache and slots, prefetcher, how loads move.
        trace: what the router chooses; its `lookahead` is what the gates choose ahead.
        link_bytes_per_s: pace of the link; None for plain copies.
        progress: called after each step.
        profile: a trace that a cache or a prefetcher may learn from.
        folder: as for `offloaded`.
        device: computes.

    Returns:
        The record, whose requests are numbered as in the trace, and the time stamps; no tokens,
        since nothing is written.

    Raises:
        InputError: trace and store are of different shapes, the trace does not have what the gates
            choose as far ahead as the policy looks, or as for `offloaded`.
        RunError: a load failed, or a process that decodes did not start.
    """
    check_fits(trace, store.shape)
    if store.shape != replace(model.shape, layers=min(store.shape.layers, model.shape.layers)):
        raise InputError("the store holds other experts than those of the generated model")
    check_foresight(trace, policy)
    gates = _Told()

    @torch.inference_mode()
    def drive(handler: Offloaded) -> list[list[int]]:
        steps = list(steps_of(trace))
        start = model.start(max(step.tokens for step in steps)).to(device.place)
        ends = np.cumsum([0, *(step.tokens for step in steps)]).tolist()
        # Draws the weights of the dense parts, and reads them once.
        model.forward(start[:1], _routed(trace, slice(0, 1), device), lambda _, hidden, *__: hidden)
        for step, (begin, end) in zip(steps, pairwise(ends), strict=True):
            rows = slice(begin, end)
            routed = _routed(trace, rows, device)
            gates.lookups = lookups_at(trace, rows, step.phase)
            handler.begin(step.request, step.phase, step.tokens)
            model.forward(start[: step.tokens], routed, handler)
            handler.end()
            progress()
        return []

    most = most_at_once(trace)
    look = gates.looking
    return offloaded(
        store, policy, trace.top_k, look, drive, link_bytes_per_s, profile, most, folder, device
    )


class _Told:
    """What the gates of the next layers chose when the trace was recorded.

    Attributes:
        lookups: of the step that is computed.
    """

    def __init__(self) -> None:
        self._distance = 0
        self.lookups: list[Lookup] = []

    def looking(self, distance: int) -> Self:
        """The same, asked so many layers ahead."""
        self._distance = distance
        return self

    def ahead(self, layer: int, hidden: torch.Tensor, ids: torch.Tensor) -> list[list[int]]:
        """As far as the policy looks; hidden states are not asked."""
        return self.lookups[layer].lookahead[: self._distance]


def _routed(trace: Trace, rows: slice, device: Device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each layer ids [tokens, top_k] int64 and weights [tokens, top_k] float32."""
    ids = np.ascontiguousarray(trace.experts[rows].swapaxes(0, 1)).astype(np.int64)
    weights = np.ascontiguousarray(trace.weights[rows].swapaxes(0, 1)).astype(np.float32)
    there = (torch.from_numpy(array).to(device.place) for array in (ids, weights))
    return list(zip(*there, strict=True))


def check_fits(trace: Trace, shape: ExpertShape) -> None:
    """Refuse a trace of other experts.

    Raises:
        InputError: layers or experts a layer are not those of the shape.
    """
    own = (trace.layers, trace.info.experts_per_layer)
    if own != (shape.layers, shape.experts):
        raise InputError(
            f"the trace has {own[0]} layers of {own[1]} experts, the experts that it is to drive "
            f"{shape.layers} of {shape.experts}; generate as many as the trace has"
        )


def check_foresight(trace: Trace, policy: Policy) -> None:
    """Refuse to look further ahead than the gates were asked when the trace was recorded.

    Raises:
        InputError: they were asked fewer layers ahead.
    """
    kind = prefetcher_named(policy.prefetch)
    reach = 0 if trace.lookahead is None else trace.lookahead.shape[2]
    if kind is not None and kind.gated and reach < policy.distance:
        raise InputError(
            f"prefetcher {kind.name} looks {policy.distance} layers ahead and the trace has what "
            f"the gates choose {reach} ahead; record one with --lookahead {policy.distance}"
        )


def most_at_once(trace: Trace) -> int:
    """The most distinct experts that one layer of one step asks for."""
    prompts = (step.experts.swapaxes(0, 1) for step in steps_of(trace) if step.tokens > 1)
    return max([trace.top_k, *(len(np.unique(ids)) for one in prompts for ids in one)])


def usual_memory() -> int:
    """Bytes that a run may take where nothing is said: three quarters of the machine's memory."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        whole = USUAL_MEMORY
    return int(whole * SHARE_OF_MEMORY)


def check_memory(
    model: GeneratedModel, shape: ExpertShape, slots: int, staged: int, stores: int, budget: int
) -> None:
    """Refuse what would not fit, before anything is generated.

    Args:
        model: what is generated.
        shape: of the experts that run; it may have fewer layers than the model.
        slots: experts that all layers together keep.
        staged: the most experts that one layer of one step asks for.
        stores: codecs and bounds.
        budget: bytes.

    Raises:
        InputError: slots, blobs and dense parts may take more than the budget.
    """
    places = shape.layers * shape.experts
    parts = {
        "slots": Arena.bytes_of(shape, slots, staged),
        "blobs": stores * min(model.distinct, places) * shape.bytes,
        "dense parts": model.dense_copies * model.dense_bytes,
    }
    whole = sum(parts.values())
    if whole > budget:
        named = ", ".join(f"{name} {show_bytes(nbytes)}" for name, nbytes in parts.items())
        raise InputError(
            f"experts of this shape would take up to {show_bytes(whole)} ({named}), more than the "
            f"{show_bytes(budget)} that they may; ask for fewer layers, slots or distinct experts, "
            "smaller ones, or more memory"
        )
