"""Decisions that count bytes where layers share nothing: made anew in those that differ alone."""

from offsim.policy.cache import Decision
from offsim.policy.decider import decider_for
from offsim.policy.evictions import Key
from offsim.policy.lookup import lookups_of
from offsim.policy.policy import Policy
from offsim.simulate.costs import Costs
from offsim.simulate.plan import Plan
from offsim.simulate.planner import Planner
from offsim.trace import Trace, steps_of


def apart(policy: Policy) -> bool:
    """Whether what a layer decides depends on the bytes of its own experts at most."""
    return policy.scope == "layer" and policy.prefetch == "none" and policy.host_bytes is None


class Layered:
    """Plans of one trace under policies that differ in their bounds alone.

    Args:
        trace: the router's decisions.
        profile: a trace that a policy may learn from.
    """

    def __init__(self, trace: Trace, profile: Trace | None) -> None:
        self._trace, self._profile = trace, profile
        lookups = lookups_of(trace)
        self._steps = [
            (step.tokens, step.tokens * step.context, [next(lookups) for _ in range(trace.layers)])
            for step in steps_of(trace)
        ]
        self._last: dict[int, tuple[list[int], list[Decision]]] = {}

    def planned(self, policy: Policy, costs: Costs) -> Plan:
        """All steps, as the policy's classes decide and plan them.

        Args:
            policy: whose layers are `apart`; from call to call only its bounds may differ.
            costs: of everything.

        Raises:
            InputError: as for `decider_for` and `check_durations`.
        """

        def nbytes(key: Key) -> int:
            return costs.link_bytes(*key)

        decider = None
        for layer, blobs in enumerate(costs.codec.blob_bytes[: self._trace.layers]):
            if layer in self._last and self._last[layer][0] == blobs:
                continue
            if decider is None:
                decider = decider_for(policy, self._trace, nbytes, self._profile, costs.sizes)
            made = [decider.decide(asked[layer]) for _, _, asked in self._steps]
            self._last[layer] = blobs, made
        planner = Planner(costs)
        by_step = zip(*map(self.made, range(self._trace.layers)), strict=True)
        for (tokens, earlier, asked), decisions in zip(self._steps, by_step, strict=True):
            planner.step(0, tokens, earlier, asked, decisions)
        return planner.plan()

    def made(self, layer: int) -> list[Decision]:
        """[steps] the last decisions of a layer."""
        return self._last[layer][1]
