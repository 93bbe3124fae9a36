"""The SimPy engine: one process computes, stations serve the stages of the loads it asks for.

Keeps the contract of docs/model.md. It reads as the specification; speed comes second.
"""

from collections import Counter
from collections.abc import Generator
from typing import Any

import simpy

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.cache import ExpertCache
from offsim.policy.policy import Policy
from offsim.policy.replay import Lookup, cache_for, lookups_of
from offsim.record.events import STAGES, Load, RunRecord, Stage, StepRecord, Wait
from offsim.simulate.costs import Costs
from offsim.simulate.station import Station, Worker
from offsim.trace import Trace, steps_of


def simulate(
    trace: Trace,
    policy: Policy,
    calibration: Calibration,
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
) -> RunRecord:
    """Replay a trace under a policy; requests are served one after the other.

    Args:
        trace: the router's decisions.
        policy: codec, bound and cache.
        calibration: of the machine, the model and that codec and bound.
        link_bytes_per_s: pace of the link; None for the machine's own.
        profile: a trace whose popular experts a cache may pin.

    Returns:
        What happened, on a clock that starts at 0: SIMULATED, or ESTIMATED where a part of the
        calibration was not measured.

    Raises:
        InputError: trace and calibration are of different shapes, or the codec and bound were not
            calibrated.
    """
    model = calibration.model
    if (trace.layers, trace.info.experts_per_layer) != (model.layers, model.experts):
        raise InputError(
            f"the trace has {trace.layers} layers of {trace.info.experts_per_layer} experts, "
            f"the calibration {model.layers} of {model.experts}; give two of the same model"
        )
    costs = Costs(calibration, policy, link_bytes_per_s)
    cache = cache_for(policy, trace, profile)
    record = RunRecord("SIMULATED" if calibration.measured else "ESTIMATED")
    env = simpy.Environment()
    machine = _Machine(env, costs)
    env.run(env.process(_compute(machine, cache, costs, trace, record)))
    return record


class _Machine:
    """The workers of the model and how a load goes through them."""

    def __init__(self, env: simpy.Environment, costs: Costs) -> None:
        self.env, self.costs = env, costs
        self.compute = Worker(env)
        self.ready: simpy.Store = simpy.Store(env)
        self._route: dict[int, list[tuple[Stage, float]]] = {}
        first = "host decode" if costs.codec.placement == "host" else "link"
        self.stations = {
            stage: Station(
                env, stage, costs.start_s if stage == first else costs.between_s, self._forward
            )
            for stage in STAGES
        }
        # Only the decoder of the codec's placement contends with compute; unpacking is a copy.
        decoder = self.stations["host decode" if first == "host decode" else "device decode"]
        decoder.slows(self.compute, costs.codec.compute_slowdown)
        self.compute.slows(decoder, costs.codec.decode_slowdown)

    def ask(self, load: Load) -> None:
        """Start a load on its path."""
        stages = self.costs.stages(load.layer, load.expert)
        self._route[id(load)] = [(cost.stage, cost.seconds) for cost in stages]
        self._forward(load)

    def _forward(self, load: Load) -> None:
        route = self._route[id(load)]
        if route:
            stage, seconds = route.pop(0)
            self.stations[stage].put(load, seconds)
        else:
            del self._route[id(load)]
            self.ready.put(load)


def _compute(
    machine: _Machine, cache: ExpertCache, costs: Costs, trace: Trace, record: RunRecord
) -> Generator[simpy.Event, Any, None]:
    env = machine.env
    cold = 0.0
    lookups = lookups_of(trace)
    for step in steps_of(trace):
        now = StepRecord(step.request, step.phase, env.now)
        record.steps.append(now)
        for layer in range(trace.layers):
            yield machine.compute.work(costs.before_experts_s(layer, step.tokens) + cold)
            idle = yield from _experts(machine, cache, costs, next(lookups), now)
            cold = costs.coldness_s(cold, idle)
        yield machine.compute.work(costs.head_s(step.tokens) + cold)
        now.end = env.now


def _experts(
    machine: _Machine, cache: ExpertCache, costs: Costs, lookup: Lookup, now: StepRecord
) -> Generator[simpy.Event, Any, float]:
    """The experts of one layer: the resident ones at once, then each as it becomes ready.

    Returns how long compute stood idle, s.
    """
    env, layer = machine.env, lookup.layer
    tokens = Counter(lookup.accesses)
    decision = cache.lookup(layer, lookup.accesses, lookup.weights)
    now.decisions.append(decision)
    for expert in decision.misses:
        yield machine.compute.work(costs.submit_s)
        load = Load(layer, expert, costs.link_bytes(layer, expert), env.now)
        now.loads.append(load)
        machine.ask(load)
    for expert in decision.hits:
        yield machine.compute.work(costs.expert_s(tokens[expert]))
    idle = 0.0
    for _ in decision.misses:
        since = env.now
        waited = not machine.ready.items
        load = yield machine.ready.get()
        if waited:
            yield env.timeout(costs.wake_s)
            now.waits.append(Wait(since, env.now, load))
        idle += env.now - since
        yield machine.compute.work(costs.expert_s(tokens[load.expert]))
    return idle
