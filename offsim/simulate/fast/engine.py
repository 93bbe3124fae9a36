"""The fast engine as an object."""

import numpy as np

from offsim.simulate.fast.memory import fresh_memory
from offsim.simulate.fast.state import (
    COUNT,
    NOW,
    fresh_state,
    load_clocks,
    with_room,
)
from offsim.simulate.fast.steps import Scratch, run_steps
from offsim.simulate.plan import Clocks, LoadClocks, Machine, Plan


class FastEngine:
    """Tells when the steps of plans happen, one plan after the other.

    Args:
        machine: the costs of handing over, and who disturbs whom.
        events: whether every load and wait is kept, or only what the metrics need.
    """

    def __init__(self, machine: Machine, *, events: bool = True) -> None:
        self.machine, self.events = machine, events
        self._state = fresh_state(machine)
        self._loads = 0

    @property
    def now(self) -> int:
        """Time since the simulation began, ps."""
        return int(self._state.st[NOW])

    def advance(self, plan: Plan) -> Clocks:
        """Go on with the steps of a plan."""
        self._loads = plan.first_load + len(plan.kind)
        self._state = with_room(self._state, self._loads)
        clocks = Clocks.of(plan, events=self.events)
        # A layer that is found again leaves no events.
        memory = fresh_memory(plan._replace(recurs=plan.recurs and not self.events))
        uses = int(np.diff(plan.uses_to, prepend=0).max(initial=0))
        scratch = Scratch(np.empty(uses, np.int64), np.empty(COUNT + 1, np.int64))
        run_steps(self.machine, plan, *self._state, clocks, memory, scratch)
        return clocks

    def loads(self) -> LoadClocks:
        """All loads so far; none where events are not kept."""
        return load_clocks(self._state, self._loads if self.events else 0)
