"""The fast engine as an object."""

import numpy as np

from offsim.simulate.fast.memory import fresh_memory, widest
from offsim.simulate.fast.state import (
    NOW,
    fresh_state,
    load_clocks,
    used_stages,
    with_ids,
    with_rows,
)
from offsim.simulate.fast.steps import Scratch, run_steps
from offsim.simulate.plan import Clocks, LoadClocks, Machine, Plan


class FastEngine:
    """Tells when the steps of plans happen, one plan after the other.

    Args:
        machine: the costs of handing over, and who disturbs whom.
        events: whether every load and wait is kept, or only what the metrics need.

    Attributes:
        found: layers so far that went as one before them did, and were not gone through again.
    """

    def __init__(self, machine: Machine, *, events: bool = True) -> None:
        self.machine, self.events, self.found = machine, events, 0
        self._state = fresh_state(machine, events=events)
        self._used = used_stages(machine)
        self._loads = 0

    @property
    def now(self) -> int:
        """Time since the simulation began, ps."""
        return int(self._state.st[NOW])

    def advance(self, plan: Plan) -> Clocks:
        """Go on with the steps of a plan."""
        self._loads = plan.first_load + len(plan.kind)
        self._state = with_ids(self._state, self._loads)
        clocks = Clocks.of(plan, events=self.events)
        used = len(self._used)
        stall = np.zeros((plan.steps, used + 1), np.int64)
        # Compiled code knows the stages that somebody serves, and no others.
        kinds = plan.kinds._replace(stages=np.ascontiguousarray(plan.kinds.stages[:, self._used]))
        plan = plan._replace(kinds=kinds)
        uses, ahead = widest(plan)
        # A layer that is found again leaves no events.
        memory = fresh_memory(plan._replace(recurs=plan.recurs and not self.events), uses, ahead)
        scratch = Scratch(*(np.empty(room, np.int64) for room in (uses, uses, used, used + 1)))
        ends = plan.loads_to[plan.layers - 1 :: plan.layers]
        step = 0
        while step < plan.steps:
            loads = int(ends[step]) - (int(ends[step - 1]) if step else 0)
            self._state = with_rows(self._state, loads)
            step = run_steps(
                self.machine,
                plan,
                step,
                self._state,
                clocks._replace(stall=stall),
                memory,
                scratch,
            )
        self.found += len(plan.before) - int(memory.counts[1])
        clocks.stall[:, self._used] = stall[:, :-1]
        clocks.stall[:, -1] = stall[:, -1]
        return clocks

    def loads(self) -> LoadClocks:
        """All loads so far; none where events are not kept."""
        return load_clocks(self._state, self.machine, self._loads if self.events else 0)
