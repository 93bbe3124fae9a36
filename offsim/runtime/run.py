"""Running a policy for real, through the experts hook."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from offsim.model.experts import ExpertShape, ExpertWeights, mixed
from offsim.model.generate import greedy_tokens
from offsim.model.hook import handled
from offsim.policy.cache import Decision, ExpertCache
from offsim.policy.evictions import Key
from offsim.policy.lookup import popularity_of
from offsim.policy.policy import Policy
from offsim.policy.registry import slots_cache
from offsim.record import RunRecord, StepRecord, Wait
from offsim.record.times import LayerTimes, StepTimes
from offsim.runtime.link import Link
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.trace import DECODE, PREFILL, Trace


class Arena:
    """The device's slots: `slots` a layer, and a staging area for what is not kept.

    Args:
        shape: of the experts.
        slots: experts that each layer keeps; a global pool has as many in all.
    """

    def __init__(self, shape: ExpertShape, slots: int) -> None:
        kept = shape.layers * min(slots, shape.experts)
        self.memory = torch.empty(kept + shape.experts, shape.values)
        self._views = [ExpertWeights.over(slot, shape) for slot in self.memory]
        self._staging = kept
        self._free = list(range(kept))[::-1]
        self._place: dict[Key, int] = {}

    def weights(self, layer: int, expert: int) -> ExpertWeights:
        """The weights of an expert that has a place."""
        return self._views[self._place[layer, expert]]

    def place(self, decision: Decision) -> list[torch.Tensor]:
        """Give each miss of a decision its slot [values] float32, after who left for it."""
        slots = []
        staged = self._staging
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            self._free += [self._place.pop(key) for key in left]
            if expert in decision.staged:
                slot, staged = staged, staged + 1
            else:
                slot = self._free.pop()
            self._place[decision.layer, expert] = slot
            slots.append(self.memory[slot])
        return slots


class Offloaded:
    """The handler that loads what is missing and runs each expert as soon as it is there."""

    def __init__(self, cache: ExpertCache, arena: Arena, pipeline: Pipeline) -> None:
        self.cache, self.arena, self.pipeline = cache, arena, pipeline
        self.record = RunRecord("MEASURED")
        self.times: list[StepTimes] = []

    def begin(self, request: int, phase: int, tokens: int) -> None:
        """A step starts."""
        now = time.perf_counter()
        self.record.steps.append(StepRecord(request, phase, now))
        self.times.append(StepTimes(tokens, now))

    def end(self) -> None:
        """The token of the step is known."""
        self.record.steps[-1].end = self.times[-1].end = time.perf_counter()

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Ask the cache once, start the loads, compute."""
        times = LayerTimes(len(ids), time.perf_counter())
        self.times[-1].layers.append(times)
        rows = ids.tolist()
        accesses = [expert for row in rows for expert in row]
        # As a trace has them, so that a replay of it decides the same.
        decision = self.cache.lookup(layer, accesses, weights.half().flatten().tolist())
        slots = self.arena.place(decision)
        step = self.record.steps[-1]
        step.decisions.append(decision)
        for expert, slot in zip(decision.misses, slots, strict=True):
            step.loads.append(self.pipeline.ask(layer, expert, slot))
        times.asked = time.perf_counter()
        times.misses = len(slots)
        out = mixed(hidden, ids, weights, self._as_ready(decision, Counter(accesses), times))
        times.leave = time.perf_counter()
        return out

    def _as_ready(
        self, decision: Decision, tokens: Counter[int], times: LayerTimes
    ) -> Iterator[tuple[int, ExpertWeights]]:
        """The resident experts, then each of the missing ones as it arrives."""
        for expert in decision.hits:
            yield from self._timed(decision.layer, expert, tokens[expert], times)
        for _ in decision.misses:
            since = time.perf_counter()
            waited = self.pipeline.ready.empty()
            load = self.pipeline.wait().load
            if waited:
                wait = Wait(since, time.perf_counter(), load)
                self.record.steps[-1].waits.append(wait)
            yield from self._timed(decision.layer, load.expert, tokens[load.expert], times)

    def _timed(
        self, layer: int, expert: int, tokens: int, times: LayerTimes
    ) -> Iterator[tuple[int, ExpertWeights]]:
        start = time.perf_counter()
        yield expert, self.arena.weights(layer, expert)
        times.experts.append((tokens, start, time.perf_counter()))


@dataclass(frozen=True)
class Run:
    """What a real run gave.

    Attributes:
        record: steps, loads, waits and decisions, MEASURED.
        tokens: written for each request.
        times: stamps of compute, a StepTimes a step.
    """

    record: RunRecord
    tokens: list[list[int]] = field(default_factory=list)
    times: list[StepTimes] = field(default_factory=list)


def run_offloaded(
    model: PreTrainedModel,
    store: ExpertStore,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    count: int,
    link_bytes_per_s: float | None = None,
    progress: Callable[[], None] = lambda: None,
    profile: Trace | None = None,
) -> Run:
    """Answer prompts one after the other with the experts offloaded.

    Args:
        model: whose own experts are not used.
        store: its experts in host memory, under the policy's codec and bound.
        policy: codec, bound, cache and slots.
        prompts: ids of each request.
        count: tokens written for each.
        link_bytes_per_s: pace of the link; None for plain copies.
        progress: called after each step.
        profile: a trace whose popular experts a cache may pin.

    Raises:
        InputError: the cache is an oracle, or needs a profile.
        RunError: a load failed.
    """
    shape = store.shape
    known = popularity_of(profile) if profile is not None else None
    cache = slots_cache(policy.cache, shape.layers, policy.slots, policy.scope, policy.seed, known)
    arena = Arena(shape, policy.slots)
    pipeline = Pipeline(store, Link(link_bytes_per_s))
    handler = Offloaded(cache, arena, pipeline)
    tokens = []
    try:
        with single_compute_thread(), handled(model, handler):
            for request, prompt in enumerate(prompts):

                def before(step: int, request: int = request, length: int = len(prompt)) -> None:
                    phase = DECODE if step else PREFILL
                    handler.begin(request, phase, 1 if step else length)

                def after(_: int) -> None:
                    handler.end()
                    progress()

                tokens.append(greedy_tokens(model, prompt, count, before, after))
    finally:
        pipeline.close()
    return Run(handler.record, tokens, handler.times)
