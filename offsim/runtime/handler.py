"""The handler that runs the experts of a model while they are offloaded."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from offsim.model.experts import mixed
from offsim.model.formulas import FeedForward, Formula, plain
from offsim.policy.cache import Decision
from offsim.policy.decider import Decider
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.record import RunRecord, StepRecord, Wait
from offsim.record.times import LayerTimes, StepTimes
from offsim.runtime.arena import Slots
from offsim.runtime.devices import CPU, Device, Kept
from offsim.runtime.gates import Foresight
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.stages import output_of
from offsim.runtime.waiting import Job


class Offloaded:
    """Loads what is missing, runs each expert as soon as it is there, and loads ahead.

    Args:
        decider: who stays and who comes.
        arena: the slots.
        pipeline: fills them.
        gates: what those of the next layers choose.
        device: that computes. It is asked for the time where compute has ended something, and its
            compute is then through: what has run is no longer read.
        formula: what experts compute beside their weights.
    """

    def __init__(
        self,
        decider: Decider,
        arena: Slots,
        pipeline: Pipeline,
        gates: Foresight,
        device: Device = CPU,
        formula: Formula = plain,
    ) -> None:
        self._formula = formula
        self.decider, self.arena, self.pipeline, self.gates = decider, arena, pipeline, gates
        self._now = device.now
        self.record = RunRecord("MEASURED")
        self.times: list[StepTimes] = []
        self._ahead: dict[Key, Job] = {}  # fetched and not yet asked for
        self._disk: deque[Key] = deque()  # loads of the last decision that come from disk

    def begin(self, request: int, phase: int, tokens: int, context: int = 0) -> None:
        """A step starts; its layers attend to `context` tokens of earlier ones besides."""
        now = self._now()
        self.record.steps.append(StepRecord(request, phase, now))
        self.times.append(StepTimes(tokens, now, context=context))

    def end(self) -> None:
        """The token of the step is known."""
        self.record.steps[-1].end = self.times[-1].end = self._now()

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Decide once, start the loads, compute, start what is fetched ahead."""
        times = LayerTimes(len(ids), self._now())
        self.times[-1].layers.append(times)
        rows = ids.tolist()
        accesses = [expert for row in rows for expert in row]
        step = self.record.steps[-1]
        # Weights as a trace has them, so that a replay of it decides the same.
        given = weights.half().flatten().tolist()
        foreseen = self.gates.ahead(layer, hidden, ids)
        decision = self.decider.decide(Lookup(layer, step.phase, accesses, given, foreseen))
        step.decisions.append(decision)
        if self.pipeline.shelf is not None:
            self.pipeline.shelf.decided(decision)
            self._disk = deque(decision.from_disk)
        tokens = Counter(accesses)
        slots = self.arena.place(decision)
        late = self._raise(decision) if self._ahead else ()
        again = self.arena.again(decision)
        asked: Sequence[int] = decision.misses
        if again:
            asked = [expert for expert in tokens if expert in again or expert in decision.misses]
        states = partial(_served_by, hidden, ids)
        for job in self._asked(decision, asked, again, slots, states):
            step.loads.append(job.load)
        times.asked = time.perf_counter()
        times.misses = len(asked)
        awaited = {*late, *asked}
        ready = self._as_ready(decision, awaited, tokens, times)
        out = mixed(hidden, ids, weights, ready)
        times.leave = self._now()
        return out

    def _asked(
        self,
        decision: Decision,
        experts: Sequence[int],
        again: Mapping[int, tuple[Kept, torch.Tensor]],
        slots: Sequence[torch.Tensor],
        states: Callable[[int], torch.Tensor],
    ) -> Iterator[Job]:
        """Start what a lookup waits for: loads, experts on the host, blobs that are decoded.

        Args:
            decision: of the lookup.
            experts: all of these, in router order.
            again: those that are on the device as blobs, with a slot for each.
            slots: of those that are loaded.
            states: gives the hidden states of an expert's tokens.
        """
        layer, ask, room = decision.layer, self.pipeline.ask, iter(slots)
        for expert in experts:
            if expert in again:
                yield self.pipeline.decode(layer, expert, *again[expert])
                continue
            disk = self._is_next_from_disk((layer, expert))
            if expert in decision.on_host:
                hidden = states(expert).cpu()
                yield self.pipeline.compute(layer, expert, hidden, from_disk=disk)
                continue
            coarse = expert in decision.coarse
            job = ask(layer, expert, next(room), from_disk=disk, coarse=coarse)
            if expert not in decision.staged:
                self.arena.keep(job)
            yield job

    def _is_next_from_disk(self, key: Key) -> bool:
        """Whether the next load, which is of this expert, was decided to come from disk."""
        if not self._disk or self._disk[0] != key:
            return False
        self._disk.popleft()
        return True

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
        self, decision: Decision, awaited: set[int], tokens: Counter[int], times: LayerTimes
    ) -> Iterator[tuple[int, FeedForward]]:
        """The experts that are ready, then each of the others as it arrives."""
        layer = decision.layer
        for expert in decision.hits:
            if expert not in awaited:
                yield from self._timed(layer, expert, tokens[expert], times)
        for _ in awaited:
            since = time.perf_counter()
            job = self.pipeline.arrived()
            if job is None:
                job = self.pipeline.wait()
                wait = Wait(since, time.perf_counter(), job.load)
                self.record.steps[-1].waits.append(wait)
            expert = job.load.expert
            if job.hidden is not None:
                yield expert, partial(_computed, output_of(job))
            else:
                yield from self._timed(layer, expert, tokens[expert], times)
        self.arena.used(layer, [expert for expert in tokens if expert not in decision.on_host])
        if decision.fetched:
            since = time.perf_counter()
            self._fetch(decision)
            times.fetched, times.fetching = len(decision.fetched), time.perf_counter() - since

    def _fetch(self, decision: Decision) -> None:
        """Start what is fetched ahead, now that the layer's experts have run."""
        slots = self.arena.place_ahead(decision)
        self._give_up(decision.displaced)
        for key, slot in zip(decision.fetched, slots, strict=True):
            disk = self._is_next_from_disk(key)
            job = self._ahead[key] = self.pipeline.ask(*key, slot, ahead=True, from_disk=disk)
            self.arena.keep(job)
            self.record.steps[-1].loads.append(job.load)

    def _timed(
        self, layer: int, expert: int, tokens: int, times: LayerTimes
    ) -> Iterator[tuple[int, FeedForward]]:
        start = time.perf_counter()
        yield expert, self._formula(layer, expert, self.arena.weights(layer, expert))
        times.experts.append((tokens, start, self._now()))


def _served_by(hidden: torch.Tensor, ids: torch.Tensor, expert: int) -> torch.Tensor:
    """The rows of hidden states that an expert serves, as `mixed` gives them to it."""
    return hidden if len(ids) == 1 else hidden[torch.where(ids == expert)[0]]


def _computed(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """What the host has computed for these hidden states."""
    return output
