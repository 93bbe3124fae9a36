"""The same simulation under table after table of bounds; what bounds do not change is kept."""

from functools import cached_property

from offsim.calibration.schema import Calibration
from offsim.policy.bounds import Bounds
from offsim.policy.policy import Policy
from offsim.record import Metrics
from offsim.record.metrics import metrics_of_table
from offsim.simulate.costs import Costs
from offsim.simulate.fast import FastEngine
from offsim.simulate.fast.planning import Frame, covers, fast_planned, frame_of
from offsim.simulate.layered import Layered, apart
from offsim.simulate.outcome import Batches, Outcome
from offsim.simulate.outline import Outline, Outliner, counts_bytes
from offsim.simulate.plan import Plan
from offsim.simulate.simulation import check_shapes, decided, label_of, planned, serial
from offsim.trace import Trace


class Predictor:
    """Metrics under many tables of bounds, to the bit those of `predict`.

    Steps and requests of the trace are looked at once. Decisions are made once too, unless they
    count bytes; then, where layers share nothing, in those whose bytes are others.

    Args:
        trace: the router's decisions.
        policy: everything but the table of bounds.
        calibration: of the machine, the model and the bounds to come.
        link_bytes_per_s: pace of the link; None for the machine's own.
        profile: a trace that a policy may learn from.

    Raises:
        InputError: trace and calibration are of different shapes.
    """

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        calibration: Calibration,
        link_bytes_per_s: float | None = None,
        profile: Trace | None = None,
    ) -> None:
        check_shapes(trace, calibration)
        self._trace, self._policy, self._calibration = trace, policy, calibration
        self._link_bytes_per_s, self._profile = link_bytes_per_s, profile
        self._label = label_of(calibration)
        self._outline: Outline | None = None

    def predict(self, bounds: Bounds) -> Metrics:
        """The metrics under a table of bounds.

        Raises:
            InputError: as for `predict`.
        """
        policy = self._policy.model_copy(update={"bound": 0.0, "bounds": bounds})
        costs = Costs(self._calibration, policy, self._link_bytes_per_s)
        plan = self._plan(policy, costs)
        engine = FastEngine(costs.machine(), events=False)
        clocks = engine.advance(plan)
        outcome = Outcome(self._label, [plan], [clocks], self._batches, engine.loads())
        return metrics_of_table(outcome.table(), outcome.label)

    def _plan(self, policy: Policy, costs: Costs) -> Plan:
        if covers(policy):
            return fast_planned(self._trace, policy, costs, self._profile, self._frame)[0]
        if counts_bytes(policy):
            if apart(policy):
                return self._layered.planned(policy, costs)
            return planned(self._trace, policy, costs, self._profile, None)[0]
        if self._outline is None:
            outliner = Outliner(costs)
            decided(outliner, self._trace, policy, costs, self._profile)
            self._outline = outliner.outline()
        return self._outline.priced(costs)

    @cached_property
    def _frame(self) -> Frame:
        attention = self._calibration.compute.attention_s
        return frame_of(self._trace, attends=attention is not None and attention.value != 0)

    @cached_property
    def _layered(self) -> Layered:
        return Layered(self._trace, self._profile)

    @cached_property
    def _batches(self) -> Batches:
        return serial(self._trace)
