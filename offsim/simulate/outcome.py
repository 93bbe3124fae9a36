"""What a simulation gives: plans and their clocks, as a table of metrics or as a record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.record.events import STAGES, Label, Load, RunRecord, Span, StepRecord, Wait
from offsim.record.table import PS, StepTable
from offsim.simulate.clock import Ints
from offsim.simulate.plan import NONE, Clocks, LoadClocks, Plan
from offsim.simulate.tally import tally
from offsim.trace.format import DECODE, PREFILL


class Batches(NamedTuple):
    """Whose tokens the steps computed.

    Attributes:
        decode: [steps] whether a step has decode tokens alone, bool.
        first_request: [steps] id of the first request of each.
        emit_step: [output tokens] the step that each came from, rising.
        emit_request: [output tokens] whose it is: an index in `requests`.
        requests: [requests] ids.
        arrival: [requests] ps; NONE: when its first step started.
    """

    decode: npt.NDArray[np.bool_]
    first_request: Ints
    emit_step: Ints
    emit_request: Ints
    requests: Ints
    arrival: Ints


@dataclass
class Outcome:
    """A simulation that is over.

    Attributes:
        label: SIMULATED or ESTIMATED.
        plans: what was done.
        clocks: when; one a plan.
        batches: for whom.
        loads: when each load happened, where events were kept.
        decisions: the decision log, where it was kept.
    """

    label: Label
    plans: Sequence[Plan]
    clocks: Sequence[Clocks]
    batches: Batches
    loads: LoadClocks
    decisions: Sequence[Decision] = field(default_factory=list)

    def table(self) -> StepTable:
        """What the metrics are computed from."""
        start, end, stall, late, _ = (_whole(column) for column in zip(*self.clocks, strict=True))
        counts = tally(self.plans)
        batches = self.batches
        arrival = batches.arrival
        if (arrival == NONE).any():
            order = np.arange(len(batches.emit_step) - 1, -1, -1)
            first = np.zeros(len(arrival), np.int64)
            first[batches.emit_request[order]] = batches.emit_step[order]  # the earliest stays
            arrival = np.where(arrival == NONE, start[first], arrival)
        return StepTable(
            start=start,
            end=end,
            decode=batches.decode,
            stall=stall,
            lookups=counts.lookups,
            hits=counts.lookups - counts.misses - late,
            late=late,
            again=counts.again,
            demand_bytes=counts.demand_bytes,
            prefetch_bytes=counts.prefetch_bytes,
            wasted_bytes=counts.wasted_bytes,
            disk_bytes=counts.disk_bytes,
            emit_step=batches.emit_step,
            emit_request=batches.emit_request,
            arrival=arrival,
        )

    def record(self) -> RunRecord:
        """Every step, load, wait and decision, as objects.

        Raises:
            ValueError: events were not kept.
        """
        if len(self.loads.asked) < sum(len(plan.kind) for plan in self.plans):
            raise ValueError("events were not kept in this simulation")
        return _Recorder(self).record()


class _Recorder:
    """Turns arrays into objects.

    Args:
        outcome: with its events and decisions.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome, self._batches = outcome, outcome.batches
        self._loads: list[Load] = []
        self._decisions = iter(outcome.decisions)
        self._used = np.zeros(len(outcome.loads.asked), bool)
        for plan in outcome.plans:
            self._used[plan.load[plan.load != NONE]] = True

    def record(self) -> RunRecord:
        """The whole record."""
        batches = self._batches
        requests = batches.requests.tolist()
        arrivals = {
            request: at / PS
            for request, at in zip(requests, batches.arrival.tolist(), strict=True)
            if at != NONE
        }
        emits: dict[int, list[int]] = {}
        for step, request in zip(
            batches.emit_step.tolist(), batches.emit_request.tolist(), strict=True
        ):
            emits.setdefault(step, []).append(requests[request])
        record = RunRecord(self._outcome.label, arrivals=arrivals)
        for plan, clocks in zip(self._outcome.plans, self._outcome.clocks, strict=True):
            for step in range(plan.steps):
                number = len(record.steps)
                decode = bool(batches.decode[number])
                first = int(batches.first_request[number])
                emitting = tuple(emits.get(number, ()))
                record.steps.append(
                    StepRecord(
                        first,
                        DECODE if decode else PREFILL,
                        int(clocks.start[step]) / PS,
                        int(clocks.end[step]) / PS,
                        late=int(clocks.late[step]),
                        emits=None if emitting == (first,) else emitting,
                    )
                )
                self._fill(record.steps[-1], plan, clocks, step)
        return record

    def _fill(self, record: StepRecord, plan: Plan, clocks: Clocks, step: int) -> None:
        """Decisions, loads and waits of a step."""
        lookups = slice(step * plan.layers, (step + 1) * plan.layers)
        first_load = _start(plan.loads_to, lookups.start)
        first_use = _start(plan.uses_to, lookups.start)
        for lookup in range(lookups.start, lookups.stop):
            decision = next(self._decisions)
            record.decisions.append(decision)
            demands = plan.demands_to[lookup] - first_load
            experts: Sequence[int] = decision.misses
            if demands > len(experts):
                experts = self._demanded(plan, decision, first_use, lookup)
            keys: list[Key] = [(decision.layer, expert) for expert in experts]
            keys += decision.fetched
            for at, key in enumerate(keys):
                record.loads.append(self._load(plan, first_load + at, key, ahead=at >= demands))
            first_load, first_use = plan.loads_to[lookup], plan.uses_to[lookup]
        first_use, last_use = _start(plan.uses_to, lookups.start), plan.uses_to[lookups.stop - 1]
        waits = clocks.waits[first_use:last_use]
        waited = np.flatnonzero(waits[:, 0] != NONE)
        for use in waited[np.argsort(waits[waited, 0], kind="stable")]:
            start, end = waits[use].tolist()
            load = self._loads[plan.load[first_use + use]]
            record.waits.append(Wait(start / PS, end / PS, load))

    def _demanded(
        self, plan: Plan, decision: Decision, first_use: int, lookup: int
    ) -> Sequence[int]:
        """The experts of a lookup's demands, where some of them are there and are decoded."""
        hits, misses = iter(decision.hits), iter(decision.misses)
        first = plan.first_load + _start(plan.loads_to, lookup)
        found = []
        for load in plan.load[first_use : plan.uses_to[lookup]].tolist():
            there = load < first or plan.kinds.resident[plan.kind[load - plan.first_load]]
            expert = next(hits if there else misses)
            if load >= first:
                found.append(expert)
        return found

    def _load(self, plan: Plan, at: int, key: Key, *, ahead: bool) -> Load:
        clocks, number = self._outcome.loads, plan.first_load + at
        kind = plan.kind[at]
        whole = not ahead or clocks.moved[number] == plan.kinds.chunks[kind]
        last = int(np.flatnonzero(plan.kinds.stages[kind])[-1])
        spans = [
            Span(stage, start / PS, end / PS)
            for stage, (start, end) in zip(STAGES, clocks.served[number].tolist(), strict=True)
            if end != NONE
        ]
        load = Load(
            *key,
            int(plan.kinds.nbytes[kind]),
            int(clocks.asked[number]) / PS,
            spans,
            ahead,
            bool(self._used[number]),
            int(plan.kinds.disk_bytes[kind]),
            ends_with=STAGES[last] if whole else None,
        )
        self._loads.append(load)
        return load


def _start(ends: npt.NDArray[np.int32], at: int) -> int:
    """Where the entries of `at` begin."""
    return int(ends[at - 1]) if at else 0


def _whole(parts: Sequence[Ints]) -> Ints:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
