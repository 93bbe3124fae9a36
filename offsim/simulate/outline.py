"""Plans without prices: where bytes decide nothing, one serves every table of bounds."""

from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np

from offsim.policy.policy import Policy
from offsim.simulate.clock import PS, Ints
from offsim.simulate.costs import Costs, kinds_of
from offsim.simulate.plan import Plan
from offsim.simulate.planner import Asked, Planner, check_durations
from offsim.simulate.works import Work, seconds_of

ASKED = get_args(Asked)
WORKS: tuple[Work, ...] = get_args(Work)


class Outline(NamedTuple):
    """A plan, and what its prices are of.

    Attributes:
        plan: whose `kind` is an index in `loads`; its kinds and durations do not matter.
        loads: what is asked of `Costs` for each load: which of ASKED, and its arguments.
        works: [durations, 3] which of WORKS, tokens, and earlier ones as `Costs.before_experts_s`
            has them.
    """

    plan: Plan
    loads: Sequence[tuple[int, ...]]
    works: Ints

    def priced(self, costs: Costs) -> Plan:
        """The plan that a fresh `Planner` of these costs makes of the same decisions.

        Raises:
            InputError: as for `check_durations`.
        """
        row: dict[tuple[int, ...], int] = {}
        rows = [
            row.setdefault(costs.asked(ASKED[which], *about), len(row))
            for which, *about in self.loads
        ]
        what, tokens, earlier = self.works.T
        seconds = np.zeros(len(what))
        for at, work in enumerate(WORKS):
            mine = what == at
            if mine.any():
                seconds[mine] = seconds_of(costs, work, tokens[mine], earlier[mine])
        plan = self.plan._replace(
            kind=np.array(rows, np.int32)[self.plan.kind],
            durations=np.rint(seconds * PS).astype(np.int64),
            kinds=kinds_of(list(row)),
        )
        check_durations(plan)
        return plan


class Outliner(Planner):
    """Writes one outline, as `Planner` writes a plan."""

    def outline(self) -> Outline:
        """The steps so far."""
        works = [(WORKS.index(what), *of) for what, *of in self._place]
        return Outline(self._plan(kinds_of(())), list(self._kinds), np.array(works, np.int64))

    def _cost(self, what: Asked, *about: int) -> tuple[int, ...]:
        """What is asked, in the place of the answer."""
        return ASKED.index(what), *about


def counts_bytes(policy: Policy) -> bool:
    """Whether a decision may depend on the bytes of an expert."""
    return (
        policy.host_bytes is not None
        or policy.keep != "decoded"
        or policy.prefetch_bytes is not None
    )
