"""The time stamps that a real run would leave, as far as they say what was computed."""

from offsim.policy.policy import Policy
from offsim.record.times import LayerTimes, StepTimes
from offsim.simulate import simulate
from offsim.trace import Trace, steps_of
from tests.builders import calibration


def stamps(trace: Trace, policy: Policy) -> list[StepTimes]:
    """How many tokens each expert served, in the order in which experts ran, all at time 0."""
    record = simulate(trace, policy, calibration())
    times = []
    for step, of_trace in zip(record.steps, steps_of(trace), strict=True):
        seen = StepTimes(of_trace.tokens, 0.0, context=of_trace.context)
        for decision in step.decisions:
            ids = of_trace.experts[:, decision.layer]
            experts = [
                (int((ids == expert).sum()), 0.0, 0.0)
                for expert in (*decision.hits, *decision.misses)
            ]
            seen.layers.append(LayerTimes(of_trace.tokens, 0.0, experts=experts))
        times.append(seen)
    return times
