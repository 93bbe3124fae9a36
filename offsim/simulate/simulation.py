"""A trace under a policy on a machine: decided, planned, timed."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.decider import Decider, decider_for
from offsim.policy.evictions import Key
from offsim.policy.lookup import lookups_of
from offsim.policy.policy import Policy
from offsim.record import Metrics, RunRecord
from offsim.record.events import Label
from offsim.record.metrics import metrics_of_table
from offsim.simulate.costs import Costs
from offsim.simulate.engine import SimpyEngine
from offsim.simulate.fast import FastEngine
from offsim.simulate.fast.planning import covers, fast_planned
from offsim.simulate.noise import Noise
from offsim.simulate.outcome import Batches, Outcome
from offsim.simulate.plan import NONE, Clocks, LoadClocks, Machine, Plan
from offsim.simulate.planner import Planner
from offsim.trace import DECODE, Trace, steps_of

EngineName = Literal["fast", "simpy"]
ENGINES = get_args(EngineName)


class Engine(Protocol):
    """Tells when the steps of plans happen, one plan after the other."""

    @property
    def now(self) -> int:
        """Time since the simulation began, ps."""

    def advance(self, plan: Plan) -> Clocks:
        """Go on with the steps of a plan."""

    def loads(self) -> LoadClocks:
        """All loads so far; none where events are not kept."""


def engine_named(name: str, machine: Machine, *, events: bool) -> Engine:
    """A fresh engine.

    Raises:
        InputError: no engine has this name.
    """
    if name not in ENGINES:
        raise InputError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}")
    return (FastEngine if name == "fast" else SimpyEngine)(machine, events=events)


def simulate(
    trace: Trace,
    policy: Policy,
    calibration: Calibration,
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    engine: EngineName = "fast",
    noise_seed: int | None = None,
) -> RunRecord:
    """Replay a trace under a policy; requests are served one after the other.

    Args:
        trace: the router's decisions.
        policy: codec, bound, cache and prefetcher.
        calibration: of the machine, the model and that codec and bound.
        link_bytes_per_s: pace of the link; None for the machine's own.
        profile: a trace that a policy may learn from.
        engine: `fast` or `simpy`; they agree to the last bit.
        noise_seed: of times drawn from their calibrated spread; None for the calibrated values.

    Returns:
        What happened, on a clock that starts at 0: SIMULATED, or ESTIMATED where a part of the
        calibration was not measured.

    Raises:
        InputError: trace and calibration are of different shapes, the codec and bound were not
            calibrated, or the policy needs what is not there.
    """
    return outcome_of(
        trace, policy, calibration, link_bytes_per_s, profile, engine, noise_seed, events=True
    ).record()


def predict(
    trace: Trace,
    policy: Policy,
    calibration: Calibration,
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    engine: EngineName = "fast",
    noise_seed: int | None = None,
) -> Metrics:
    """The metrics of `simulate`, without keeping every load and wait.

    They are the same to the last bit up to 4,000 s; the seconds of a record are rounded beyond.
    """
    outcome = outcome_of(
        trace, policy, calibration, link_bytes_per_s, profile, engine, noise_seed, events=False
    )
    return metrics_of_table(outcome.table(), outcome.label)


def outcome_of(
    trace: Trace,
    policy: Policy,
    calibration: Calibration,
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    engine: EngineName = "fast",
    noise_seed: int | None = None,
    *,
    events: bool = False,
) -> Outcome:
    """The simulation behind `simulate`, which keeps `events`, and `predict`, which does not."""
    check_shapes(trace, calibration)
    costs = Costs(calibration, policy, link_bytes_per_s)
    noise = None if noise_seed is None else Noise(calibration, costs.codecs, noise_seed)
    decisions: Sequence[Decision]
    if noise is None and covers(policy):
        plan, decisions = fast_planned(trace, policy, costs, profile)
    else:
        plan, decisions = planned(trace, policy, costs, profile, noise)
    machine = costs.machine(None if noise is None else noise.handover())
    clock = engine_named(engine, machine, events=events)
    clocks = clock.advance(plan)
    return Outcome(label_of(calibration), [plan], [clocks], serial(trace), clock.loads(), decisions)


def label_of(calibration: Calibration) -> Label:
    """SIMULATED, or ESTIMATED where a part of the calibration was not measured."""
    return "SIMULATED" if calibration.measured else "ESTIMATED"


def check_shapes(trace: Trace, calibration: Calibration) -> None:
    """Refuse a trace of another model.

    Raises:
        InputError: trace and calibration are of different shapes.
    """
    model = calibration.model
    if (trace.layers, trace.info.experts_per_layer) != (model.layers, model.experts):
        raise InputError(
            f"the trace has {trace.layers} layers of {trace.info.experts_per_layer} experts, "
            f"the calibration {model.layers} of {model.experts}; give two of the same model"
        )


def planned(
    trace: Trace,
    policy: Policy,
    costs: Costs,
    profile: Trace | None,
    noise: Noise | None,
    decider: Decider | None = None,
) -> tuple[Plan, Sequence[Decision]]:
    """All steps of a trace, one request after the other, decided by the policy's classes.

    A fresh decider stands in for the policy's where its cache is none that a policy can have.
    """
    planner = Planner(costs, noise)
    log = decided(planner, trace, policy, costs, profile, decider)
    return planner.plan(), log


def decided(
    planner: Planner,
    trace: Trace,
    policy: Policy,
    costs: Costs,
    profile: Trace | None,
    decider: Decider | None = None,
) -> Sequence[Decision]:
    """Add all steps of a trace to a fresh planner; arguments as for `planned`."""

    def nbytes(key: Key) -> int:
        return costs.link_bytes(*key)

    if decider is None:
        decider = decider_for(policy, trace, nbytes, profile, costs.sizes)
    lookups = lookups_of(trace)
    log: list[Decision] = []
    for step in steps_of(trace):
        asked = [next(lookups) for _ in range(trace.layers)]
        decisions = [decider.decide(lookup) for lookup in asked]
        log += decisions
        planner.step(0, step.tokens, step.tokens * step.context, asked, decisions)
    return log


def serial(trace: Trace) -> Batches:
    """Requests one after the other: each step is of one, and gives it a token."""
    starts = np.flatnonzero(
        (np.diff(trace.request, prepend=trace.request[0] - 1) != 0) | (trace.phase == DECODE)
    )
    request = trace.request[starts].astype(np.int64)
    requests, place = np.unique(request, return_inverse=True)
    return Batches(
        decode=trace.phase[starts] == DECODE,
        first_request=request,
        emit_step=np.arange(len(starts)),
        emit_request=place,
        requests=requests,
        arrival=np.full(len(requests), NONE, np.int64),
    )
