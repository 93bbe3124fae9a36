"""A run that happened, simulated with the decisions that it took: what each step should take."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from offsim.calibration.schema import Calibration
from offsim.policy.cache import Decision
from offsim.policy.lookup import Lookup
from offsim.policy.policy import Policy
from offsim.record import RunRecord
from offsim.record.times import LayerTimes, StepTimes
from offsim.simulate.clock import PS
from offsim.simulate.costs import Costs
from offsim.simulate.fast import FastEngine
from offsim.simulate.planner import Planner


def again(
    record: RunRecord,
    times: Sequence[StepTimes],
    policy: Policy,
    calibration: Calibration,
    link_bytes_per_s: float | None = None,
) -> npt.NDArray[np.float64]:
    """How long each step of a real run takes in a simulation that is told its decisions.

    No trace is needed. The run may be of the first layers alone.

    Args:
        record: of the run; nothing was prefetched.
        times: of the same steps.
        policy: that was run; its codec and bound are in the calibration.
        calibration: of the machine and the whole model.
        link_bytes_per_s: pace of the link; None for the machine's own.

    Returns:
        [steps] s.

    Raises:
        InputError: the codec and bound were not calibrated.
    """
    layers = len(record.steps[0].decisions)
    model = calibration.model.model_copy(update={"layers": layers})
    costs = Costs(calibration.model_copy(update={"model": model}), policy, link_bytes_per_s)
    planner = Planner(costs)
    for step, seen in zip(record.steps, times, strict=True):
        asked = [
            _lookup(step.phase, decision, layer)
            for decision, layer in zip(step.decisions, seen.layers, strict=True)
        ]
        planner.step(0, seen.tokens, seen.tokens * seen.context, asked, step.decisions)
    clocks = FastEngine(costs.machine(), events=False).advance(planner.plan())
    seconds: npt.NDArray[np.float64] = (clocks.end - clocks.start) / PS
    return seconds


def _lookup(phase: int, decision: Decision, times: LayerTimes) -> Lookup:
    """A lookup that asks each expert for as many tokens as it served.

    Experts run in the order of the hits and then of the misses: one worker fetches these in order.
    """
    order = (*decision.hits, *decision.misses)
    accesses = [
        expert
        for expert, (tokens, _, _) in zip(order, times.experts, strict=True)
        for _ in range(tokens)
    ]
    return Lookup(decision.layer, phase, accesses, [1.0] * len(accesses))
