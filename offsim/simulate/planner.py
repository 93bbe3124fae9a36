"""From decisions to plans: which load each use may wait for, and what everything costs."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.simulate.clock import LATEST_PS, LONGEST_PS, PS, whole
from offsim.simulate.costs import Costs, kinds_of
from offsim.simulate.loads import LINK
from offsim.simulate.noise import Noise
from offsim.simulate.plan import NONE, Kinds, Plan

Asked = Literal["load", "on_host", "decoding"]
"""What `Costs` is asked for a load."""


@dataclass(slots=True)
class _Columns:
    """The growing columns of a plan."""

    begin: list[int] = field(default_factory=list)
    head: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    uses_to: list[int] = field(default_factory=list)
    run: list[int] = field(default_factory=list)
    load: list[int] = field(default_factory=list)
    demands_to: list[int] = field(default_factory=list)
    loads_to: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    drops_to: list[int] = field(default_factory=list)
    drop: list[int] = field(default_factory=list)


class Planner:
    """Writes plans, step by step.

    Args:
        costs: of everything.
        noise: how far costs are from their calibrated values; None for not at all.
    """

    def __init__(self, costs: Costs, noise: Noise | None = None) -> None:
        self._costs, self._noise = costs, noise
        self._kinds: dict[tuple[int, ...], int] = {}  # what each costs, and its row
        self._fetched: dict[Key, int] = {}  # prefetched and not yet used: its load
        self._blobs = costs.policy.keep != "decoded"
        self._loads = 0  # asked for so far, in all plans
        self._start()

    def step(
        self,
        begin: int,
        tokens: int,
        earlier: int,
        lookups: Sequence[Lookup],
        decisions: Sequence[Decision],
    ) -> None:
        """Add a step.

        Args:
            begin: it starts no earlier, ps.
            tokens: that it computes.
            earlier: see `Costs.before_experts_s`.
            lookups: [layers] what was asked.
            decisions: [layers] what was decided.
        """
        columns = self._columns
        columns.begin.append(begin)
        columns.head.append(self._duration("head", tokens))
        for lookup, decision in zip(lookups, decisions, strict=True):
            before = "before" if lookup.layer else "first"
            columns.before.append(self._duration(before, tokens, earlier))
            self._lookup(lookup, decision)

    def plan(self) -> Plan:
        """The steps since the last plan."""
        plan = self._plan(kinds_of(list(self._kinds)))
        check_durations(plan)
        self._start()
        return plan

    def _plan(self, kinds: Kinds) -> Plan:
        """The same, not yet checked, with these kinds of loads."""
        columns, first = self._columns, self._first_load
        ids = {
            name: np.array(getattr(columns, name), np.int32)
            for name in _Columns.__slots__
            if name != "begin"
        }
        return Plan(
            layers=self._costs.calibration.model.layers,
            first_load=first,
            begin=np.array(columns.begin, np.int64),
            **ids,
            durations=np.array(self._durations, np.int64),
            kinds=kinds,
            recurs=self._noise is None,
        )

    def _start(self) -> None:
        self._columns = _Columns()
        self._first_load = self._loads
        self._durations: list[int] = []
        self._place: dict[tuple[str, int, int], int] = {}
        if self._noise is not None:
            self._kinds = {}

    def _lookup(self, lookup: Lookup, decision: Decision) -> None:
        columns = self._columns
        tokens = Counter(lookup.accesses)
        disk = deque(decision.from_disk)  # in the order of the loads
        asked = self._demands(lookup, decision, tokens, disk)
        columns.demands_to.append(len(columns.kind))
        for expert, count in tokens.items():  # in router order
            on_host = expert in decision.on_host
            load = asked.get(expert)
            if load is None:
                load = self._fetched.pop((decision.layer, expert), NONE)
            columns.load.append(load)
            what = "kept expert" if load != NONE and self._passes(decision, expert) else "expert"
            columns.run.append(self._nothing() if on_host else self._duration(what, count))
        columns.uses_to.append(len(columns.run))
        for key, left in zip(decision.fetched, decision.displaced, strict=True):
            cost = self._cost("load", *key, _is_next(disk, key))
            self._fetched[key] = self._add_load(cost, left)
        columns.loads_to.append(len(columns.kind))

    def _passes(self, decision: Decision, expert: int) -> bool:
        """Whether an expert is decoded from a blob that is there into a place that is not kept."""
        tier = decision.decoded
        return self._blobs and (tier is None or expert in tier.staged)

    def _demands(
        self, lookup: Lookup, decision: Decision, tokens: Counter[int], disk: deque[Key]
    ) -> dict[int, int]:
        """Add what a lookup asks for now, in router order; the load of each such expert.

        Args:
            lookup: what was asked.
            decision: what was decided.
            tokens: that each expert serves.
            disk: keys of the loads to come that are from disk; this lookup's are taken off.
        """
        layer, asked = lookup.layer, {}
        evicted = dict(zip(decision.misses, decision.evicted, strict=True))
        ready = decision.decoded.hits if decision.decoded is not None else ()
        for expert in tokens if self._blobs else decision.misses:
            key = (layer, expert)
            if expert not in evicted:
                if key not in self._fetched and expert not in ready:
                    asked[expert] = self._add_load(self._cost("decoding", *key), ())
            elif expert in decision.on_host:
                cost = self._cost("on_host", *key, tokens[expert], _is_next(disk, key))
                asked[expert] = self._add_load(cost, ())
            else:
                coarse = expert in decision.coarse
                cost = self._cost("load", *key, _is_next(disk, key), coarse)
                asked[expert] = self._add_load(cost, evicted[expert], coarse=coarse)
        return asked

    def _cost(self, what: Asked, *about: int) -> tuple[int, ...]:
        """What a load costs, as `Costs.load` says it."""
        return self._costs.asked(what, *about)

    def _add_load(self, cost: tuple[int, ...], left: Sequence[Key], *, coarse: bool = False) -> int:
        """A load, and the prefetches that leave for it before they were used; returns its id."""
        columns = self._columns
        if self._noise is not None:
            cost = self._noise.load(cost, coarse=coarse)
        columns.kind.append(self._kinds.setdefault(cost, len(self._kinds)))
        columns.drop += [self._fetched.pop(gone) for gone in left if gone in self._fetched]
        columns.drops_to.append(len(columns.drop))
        self._loads += 1
        return self._loads - 1

    def _nothing(self) -> int:
        """Index of a duration of 0."""
        if ("nothing", 0, 0) not in self._place:
            self._place["nothing", 0, 0] = len(self._durations)
            self._durations.append(0)
        return self._place["nothing", 0, 0]

    def _duration(self, what: str, tokens: int, earlier: int = 0) -> int:
        """Index of how long compute takes for it."""
        costs = self._costs
        if not costs.attention_s:
            earlier = 0
        if self._noise is None and (what, tokens, earlier) in self._place:
            return self._place[what, tokens, earlier]
        seconds = {
            "first": lambda: costs.before_experts_s(0, tokens, earlier),
            "before": lambda: costs.before_experts_s(1, tokens, earlier),
            "expert": lambda: costs.expert_s(tokens),
            "kept expert": lambda: costs.kept_expert_s(tokens),
            "head": lambda: costs.head_s(tokens),
        }[what]()
        if self._noise is not None:
            seconds *= self._noise.compute(what, tokens)
        self._place[what, tokens, earlier] = len(self._durations)
        self._durations.append(whole(seconds))
        return len(self._durations) - 1


def _is_next(queue: deque[Key], key: Key) -> bool:
    """Whether a key is the first of a queue; taken off it then."""
    if not queue or queue[0] != key:
        return False
    queue.popleft()
    return True


def check_durations(plan: Plan) -> None:
    """Refuse what the clock cannot count.

    Raises:
        InputError: a piece of work takes longer than LONGEST_PS, or all of it together may take
            longer than LATEST_PS.
    """
    decodes = np.delete(plan.kinds.stages, LINK, axis=1)  # nothing contends with a link
    longest = max(plan.durations.max(initial=0), decodes.max(initial=0))
    if longest > LONGEST_PS:
        raise InputError(
            f"one piece of work would take {longest / PS:g} s, longer than the "
            f"{LONGEST_PS / PS:g} s that a simulation can count; check the calibration"
        )
    pieces = len(plan.run) + len(plan.before) + len(plan.head)
    slowest = int(plan.kinds.stages.sum(1).max(initial=0))
    if pieces * int(plan.durations.max(initial=0)) + len(plan.kind) * slowest <= LATEST_PS:
        return  # a quick look suffices almost always
    indices = np.concatenate((plan.run, plan.before, plan.head))
    latest = float(plan.durations[indices].sum(dtype=float))  # one after the other, at worst
    latest += float(plan.kinds.stages[plan.kind].sum(dtype=float))
    if latest > LATEST_PS:
        raise InputError(
            f"this simulation may take {latest / PS:.3g} s, longer than the {LATEST_PS / PS:g} s "
            "that a simulation can count; check the speed of the link, or use a shorter trace"
        )
