"""The handler that runs the experts of a model while they are offloaded."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from offsim.model.experts import ExpertWeights, mixed
from offsim.policy.cache import Decision
from offsim.policy.decider import Decider
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.record import RunRecord, StepRecord, Wait
from offsim.record.times import LayerTimes, StepTimes
from offsim.runtime.arena import Arena
from offsim.runtime.gates import Foresight
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.waiting import Job


class Offloaded:
    """Loads what is missing, runs each expert as soon as it is there, and loads ahead.

    Args:
        decider: who stays and who comes.
        arena: the slots.
        pipeline: fills them.
        gates: what those of the next layers choose.
    """

    def __init__(
        self, decider: Decider, arena: Arena, pipeline: Pipeline, gates: Foresight
    ) -> None:
        self.decider, self.arena, self.pipeline, self.gates = decider, arena, pipeline, gates
        self.record = RunRecord("MEASURED")
        self.times: list[StepTimes] = []
        self._ahead: dict[Key, Job] = {}  # fetched and not yet asked for

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
        """Decide once, start the loads, compute, start what is fetched ahead."""
        times = LayerTimes(len(ids), time.perf_counter())
        self.times[-1].layers.append(times)
        rows = ids.tolist()
        accesses = [expert for row in rows for expert in row]
        step = self.record.steps[-1]
        # Weights as a trace has them, so that a replay of it decides the same.
        given = weights.half().flatten().tolist()
        foreseen = self.gates.ahead(layer, hidden, ids)
        decision = self.decider.decide(Lookup(layer, step.phase, accesses, given, foreseen))
        step.decisions.append(decision)
        slots = self.arena.place(decision)
        late = self._raise(decision) if self._ahead else ()
        for expert, slot in zip(decision.misses, slots, strict=True):
            step.loads.append(self.pipeline.ask(layer, expert, slot).load)
        times.asked = time.perf_counter()
        times.misses = len(slots)
        ready = self._as_ready(decision, late, Counter(accesses), times)
        out = mixed(hidden, ids, weights, ready)
        times.leave = time.perf_counter()
        return out

    def _raise(self, decision: Decision) -> list[int]:
        """Give up what leaves, and make urgent what is asked for and not yet there.

        Returns:
            The latter, in router order.
        """
        self._give_up(decision.evicted)
        self.pipeline.note_arrivals()
        late = []
        for expert in decision.hits:
            if (job := self._ahead.pop((decision.layer, expert), None)) is not None:
                job.load.used = True
                if not job.there:
                    job.urgent = True
                    late.append(expert)
        self.record.steps[-1].late += len(late)
        return late

    def _give_up(self, left: Sequence[Sequence[Key]]) -> None:
        """Drop what was fetched for those who leave, and was not asked for."""
        for keys in left:
            for key in keys:
                if (job := self._ahead.pop(key, None)) is not None:
                    job.gone = True

    def _as_ready(
        self, decision: Decision, late: Sequence[int], tokens: Counter[int], times: LayerTimes
    ) -> Iterator[tuple[int, ExpertWeights]]:
        """The resident experts, then each of the others as it arrives."""
        layer = decision.layer
        for expert in decision.hits:
            if expert not in late:
                yield from self._timed(layer, expert, tokens[expert], times)
        for _ in range(len(decision.misses) + len(late)):
            since = time.perf_counter()
            job = self.pipeline.arrived()
            if job is None:
                job = self.pipeline.wait()
                wait = Wait(since, time.perf_counter(), job.load)
                self.record.steps[-1].waits.append(wait)
            expert = job.load.expert
            yield from self._timed(layer, expert, tokens[expert], times)
        if decision.fetched:
            self._fetch(decision)

    def _fetch(self, decision: Decision) -> None:
        """Start what is fetched ahead, now that the layer's experts have run."""
        slots = self.arena.place_ahead(decision)
        self._give_up(decision.displaced)
        for key, slot in zip(decision.fetched, slots, strict=True):
            job = self._ahead[key] = self.pipeline.ask(*key, slot, ahead=True)
            self.record.steps[-1].loads.append(job.load)

    def _timed(
        self, layer: int, expert: int, tokens: int, times: LayerTimes
    ) -> Iterator[tuple[int, ExpertWeights]]:
        start = time.perf_counter()
        yield expert, self.arena.weights(layer, expert)
        times.experts.append((tokens, start, time.perf_counter()))
