"""Requests that decode together: who shares a step depends on the clock, so it goes step by step.

Requests arrive while others are served. They come in and leave at step boundaries alone. At a
boundary those that have arrived are let in, in order of arrival, as long as fewer than `max_batch`
are active. A step then holds one decode token of each active request whose prompt is done and
prompt tokens of the others, the oldest first: whole prompts, or `prompt_tokens` in all. The cache
and the prefetcher are asked once a layer for the distinct experts of all rows. The chunk that ends
a prompt gives its request the first output token, each decode row one more; a request leaves after
its last row. While nobody is there the machine waits for the next arrival.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.cache import Decision
from offsim.policy.decider import decider_for
from offsim.policy.evictions import Key
from offsim.policy.lookup import lookups_at
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.policy.registry import eviction_named
from offsim.record import Metrics, RunRecord
from offsim.record.events import Label
from offsim.record.metrics import metrics_of_table
from offsim.simulate.batching import Batch, Batcher, Batching, earlier_of
from offsim.simulate.clock import Ints, whole
from offsim.simulate.costs import Costs
from offsim.simulate.noise import Noise
from offsim.simulate.outcome import Batches, Outcome
from offsim.simulate.plan import Clocks, Plan
from offsim.simulate.planner import Planner
from offsim.simulate.simulation import EngineName, check_shapes, engine_named
from offsim.trace import DECODE, Trace

LATEST_S = 30 * 86400
"""Nobody arrives later: the clock counts to 106 days."""


class Served(NamedTuple):
    """A simulation of many requests that is over.

    Attributes:
        outcome: what happened.
        together: [steps] requests that had rows in each.
    """

    outcome: Outcome
    together: Ints

    def metrics(self) -> Metrics:
        """TTFT counts from the arrival of a request.

        They are those of the record to the last bit up to 4,000 s; its seconds are rounded beyond.
        """
        return metrics_of_table(self.outcome.table(), self.outcome.label)

    def record(self) -> RunRecord:
        """Every step, load, wait and decision, on a clock that starts at 0.

        Raises:
            ValueError: events were not kept.
        """
        return self.outcome.record()


def serve(
    trace: Trace,
    policy: Policy,
    calibration: Calibration,
    arrivals: Sequence[float],
    batching: Batching,
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    engine: EngineName = "fast",
    noise_seed: int | None = None,
    *,
    events: bool = False,
    tell: Callable[[float], None] | None = None,
) -> Served:
    """Serve the requests of a trace as they arrive, those together that are there together.

    Args:
        trace: the router's decisions; each of its rows is computed once.
        policy: codec, bound, cache and prefetcher; none of them an oracle.
        calibration: of the machine, the model and that codec and bound.
        arrivals: [requests] s, in the order in which the trace has the requests.
        batching: how many may share a step.
        link_bytes_per_s: pace of the link; None for the machine's own.
        profile: a trace that a policy may learn from.
        engine: `fast` or `simpy`; they agree to the last bit.
        noise_seed: of times drawn from their calibrated spread; None for the calibrated values.
        events: whether every load, wait and decision is kept, so that there can be a record.
        tell: called after each step with the share of the rows computed, 0..1.

    Returns:
        What happened: SIMULATED, or ESTIMATED where a part of the calibration was not measured.

    Raises:
        InputError: as for `simulate`; the policy is an oracle; or arrivals are not one for each
            request, 0 or more and at most LATEST_S.
    """
    check_shapes(trace, calibration)
    check_online(policy)
    costs = Costs(calibration, policy, link_bytes_per_s)

    def nbytes(key: Key) -> int:
        return costs.link_bytes(*key)

    # The requests of the trace one after the other are not what will be asked; only its shape is
    # looked at where there is no oracle.
    decider = decider_for(policy, trace, nbytes, profile, costs.sizes)
    noise = None if noise_seed is None else Noise(calibration, costs.codecs, noise_seed)
    planner = Planner(costs, noise)
    machine = costs.machine(None if noise is None else noise.handover())
    clock = engine_named(engine, machine, events=events)
    arrival = [whole(float(seconds)) for seconds in _checked(arrivals, trace)]
    batcher = Batcher(trace, arrival, batching)
    batches: list[Batch] = []
    plans: list[Plan] = []
    clocks: list[Clocks] = []
    log: list[Decision] = []
    done = 0
    while (begin := batcher.begin(clock.now)) is not None:
        batch = batcher.step(begin)
        asked = lookups_at(trace, batch.rows, batch.phase)
        decisions = [decider.decide(lookup) for lookup in asked]
        planner.step(begin, len(batch.rows), earlier_of(trace, batch.rows), asked, decisions)
        plans.append(planner.plan())
        clocks.append(clock.advance(plans[-1]))
        batches.append(batch)
        if events:
            log += decisions
        done += len(batch.rows)
        if tell is not None:
            tell(done / trace.tokens)
    label: Label = "SIMULATED" if calibration.measured else "ESTIMATED"
    whose = _whose(batches, batcher.requests, arrival)
    together = np.array([len(batch.requests) for batch in batches], np.int64)
    return Served(Outcome(label, plans, clocks, whose, clock.loads(), log), together)


def check_online(policy: Policy) -> None:
    """Refuse oracles: what will be asked is not known before the clock tells who shares a step.

    Raises:
        InputError: the cache or the prefetcher is one, or has no such name.
    """
    cache, prefetcher = eviction_named(policy.cache), prefetcher_named(policy.prefetch)
    for what, name, oracle in (
        ("cache", policy.cache, cache.oracle),
        ("prefetcher", policy.prefetch, prefetcher is not None and prefetcher.oracle),
    ):
        if oracle:
            raise InputError(
                f"{what} {name} looks into the future, and which requests share a step is not "
                "known before the clock has come to it; choose one that does not"
            )


def _checked(arrivals: Sequence[float], trace: Trace) -> Sequence[float]:
    """The arrivals, refused where they are not one for each request or not times."""
    requests = len(np.unique(trace.request))
    if len(arrivals) != requests:
        raise InputError(f"{len(arrivals)} arrivals are given for the {requests} requests")
    for seconds in arrivals:
        if not 0 <= seconds <= LATEST_S:
            raise InputError(
                f"a request arrives at {seconds:g} s; it can be 0 to {LATEST_S} s (30 days)"
            )
    return arrivals


def _whose(batches: Sequence[Batch], requests: Ints, arrival: Sequence[int]) -> Batches:
    emits = [len(batch.emits) for batch in batches]
    return Batches(
        decode=np.array([batch.phase == DECODE for batch in batches]),
        first_request=requests[[batch.requests[0] for batch in batches]],
        emit_step=np.repeat(np.arange(len(batches)), emits),
        emit_request=np.array([one for batch in batches for one in batch.emits], np.int64),
        requests=requests,
        arrival=np.array(arrival, np.int64),
    )
