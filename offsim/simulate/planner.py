"""From decisions to plans: which load each use may wait for, and what everything costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.policy.lookup import Lookup
from offsim.simulate.clock import LONGEST_PS, PS, whole
from offsim.simulate.costs import LINK, Costs, kinds_of
from offsim.simulate.noise import Noise
from offsim.simulate.plan import NONE, Plan


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
        self._loads = 0  # asked for so far, in all plans
        self._start()

    def step(
        self, begin: int, tokens: int, lookups: Sequence[Lookup], decisions: Sequence[Decision]
    ) -> None:
        """Add a step.

        Args:
            begin: it starts no earlier, ps.
            tokens: that it computes.
            lookups: [layers] what was asked.
            decisions: [layers] what was decided.
        """
        columns = self._columns
        columns.begin.append(begin)
        columns.head.append(self._duration("head", tokens))
        for lookup, decision in zip(lookups, decisions, strict=True):
            before = "before" if lookup.layer else "first"
            columns.before.append(self._duration(before, tokens))
            self._lookup(lookup, decision)

    def plan(self) -> Plan:
        """The steps since the last plan."""
        columns, first = self._columns, self._first_load
        ids = {
            name: np.array(getattr(columns, name), np.int32)
            for name in _Columns.__slots__
            if name != "begin"
        }
        plan = Plan(
            layers=self._costs.calibration.model.layers,
            first_load=first,
            begin=np.array(columns.begin, np.int64),
            **ids,
            durations=np.array(self._durations, np.int64),
            kinds=kinds_of(list(self._kinds)),
            recurs=self._noise is None,
        )
        check_durations(plan)
        self._start()
        return plan

    def _start(self) -> None:
        self._columns = _Columns()
        self._first_load = self._loads
        self._durations: list[int] = []
        self._place: dict[tuple[str, int], int] = {}
        if self._noise is not None:
            self._kinds = {}

    def _lookup(self, lookup: Lookup, decision: Decision) -> None:
        columns = self._columns
        tokens = Counter(lookup.accesses)
        brought = dict.fromkeys(decision.misses, NONE)
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            brought[expert] = self._add_load((decision.layer, expert), left)
        columns.demands_to.append(len(columns.kind))
        for expert, count in tokens.items():  # in router order
            columns.run.append(self._duration("expert", count))
            if expert in brought:
                columns.load.append(brought[expert])
            else:
                columns.load.append(self._fetched.pop((decision.layer, expert), NONE))
        columns.uses_to.append(len(columns.run))
        for key, left in zip(decision.fetched, decision.displaced, strict=True):
            self._fetched[key] = self._add_load(key, left)
        columns.loads_to.append(len(columns.kind))

    def _add_load(self, key: Key, left: Sequence[Key]) -> int:
        """A load, and the prefetches that leave for it before they were used; returns its id."""
        columns = self._columns
        cost = self._costs.load(*key)
        if self._noise is not None:
            cost = self._noise.load(cost)
        columns.kind.append(self._kinds.setdefault(cost, len(self._kinds)))
        columns.drop += [self._fetched.pop(gone) for gone in left if gone in self._fetched]
        columns.drops_to.append(len(columns.drop))
        self._loads += 1
        return self._loads - 1

    def _duration(self, what: str, tokens: int) -> int:
        """Index of how long compute takes for it."""
        if self._noise is None and (what, tokens) in self._place:
            return self._place[what, tokens]
        costs = self._costs
        seconds = {
            "first": lambda: costs.before_experts_s(0, tokens),
            "before": lambda: costs.before_experts_s(1, tokens),
            "expert": lambda: costs.expert_s(tokens),
            "head": lambda: costs.head_s(tokens),
        }[what]()
        if self._noise is not None:
            seconds *= self._noise.compute(what, tokens)
        self._place[what, tokens] = len(self._durations)
        self._durations.append(whole(seconds))
        return len(self._durations) - 1


def check_durations(plan: Plan) -> None:
    """Refuse what the clock cannot count.

    Raises:
        InputError: a piece of work takes longer than LONGEST_PS.
    """
    decodes = np.delete(plan.kinds.stages, LINK, axis=1)  # nothing contends with a link
    longest = max(plan.durations.max(initial=0), decodes.max(initial=0))
    if longest > LONGEST_PS:
        raise InputError(
            f"one piece of work would take {longest / PS:g} s, longer than the "
            f"{LONGEST_PS / PS:g} s that a simulation can count; check the calibration"
        )
