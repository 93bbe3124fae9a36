"""The fast engine as an object."""


from offsim.record.events import STAGES
from offsim.simulate.fast.memory import fresh_memory
from offsim.simulate.fast.state import NOW, fresh_state, with_room
from offsim.simulate.fast.steps import run_steps
from offsim.simulate.plan import Clocks, LoadClocks, Machine, Plan

LINK = STAGES.index("link")


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
        return int(self._state.at[NOW])

    def advance(self, plan: Plan) -> Clocks:
        """Go on with the steps of a plan."""
        self._loads = plan.first_load + len(plan.kind)
        self._state = with_room(self._state, self._loads)
        clocks = Clocks.of(plan, events=self.events)
        memory = fresh_memory(plan)
        if self.events:
            memory = memory._replace(keys=memory.keys[:0])
        run_steps(self.machine, plan, self._state, clocks, memory)
        return clocks

    def loads(self) -> LoadClocks:
        """All loads so far; none where events are not kept."""
        rows = slice(0, self._loads if self.events else 0)
        state = self._state
        return LoadClocks(state.asked[rows], state.served[rows], state.done[rows, LINK])
