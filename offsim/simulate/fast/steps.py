"""Compute in the fast engine: what `offsim.simulate.engine` says, compiled.

Arguments, in all functions: `m` [MACHINE], and `at`, `servers`, `loads`, `live` as in `State`.
"""

from offsim.record.stall import split_ps
from offsim.simulate.clock import Ints, coldness
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.fast.memory import Memory, keep, key_of, place_of
from offsim.simulate.fast.state import (
    ACTIVE,
    CHUNKS,
    COLD,
    COUNT,
    END,
    LIVE,
    NEVER,
    NOW,
    READY,
    STAGE,
    SUBMIT,
    UNTIL,
    WAKE,
    State,
)
from offsim.simulate.fast.stations import (
    ask,
    compute_begins,
    compute_ends,
    drop,
    ends,
    next_end,
    raise_to_demand,
    starts,
)
from offsim.simulate.plan import NONE, Clocks, Machine, Plan

cold_after = compiled(coldness)
split = compiled(split_ps)


@compiled
def run_steps(
    machine: Machine,
    m: Ints,
    plan: Plan,
    state: State,
    clocks: Clocks,
    memory: Memory,
    awaited: Ints,
    stalled: Ints,
) -> None:
    """Go through the steps of a plan.

    Args:
        machine: its cooling.
        m: the rest of it.
        plan: what to do.
        state: gone on from.
        clocks: filled.
        memory: of layers.
        awaited: [uses of a lookup, at most] scratch.
        stalled: [stages + 1] scratch.
    """
    at, servers, loads, live = state.at, state.servers, state.loads, state.live
    uses_to, loads_to, demands_to = plan.uses_to, plan.loads_to, plan.demands_to
    durations, before, head = plan.durations, plan.before, plan.head
    run, load_of, kind = plan.run, plan.load, plan.kind
    keys, went = memory.keys, memory.went
    waits = clocks.waits
    remembers = len(keys) > 0
    first_use = first_load = lookup = 0
    for step in range(len(plan.begin)):
        pause(m, at, servers, loads, live, max(0, plan.begin[step] - at[NOW]))
        clocks.start[step] = at[NOW]
        stall = clocks.stall[step]
        for _ in range(plan.layers):
            last_use, then, last_load = uses_to[lookup], demands_to[lookup], loads_to[lookup]
            work(m, at, servers, loads, live, durations[before[lookup]] + at[COLD])
            key, place = 0, NONE
            if remembers and at[ACTIVE] == 0 and at[LIVE] == 0:
                key = key_of(memory, run, kind, first_use, last_use, first_load, last_load)
                place = place_of(memory, key)
            if place != NONE and keys[place] == key:
                at[NOW] += went[place, 0]
                idle = went[place, 1]
                if idle:
                    for stage in range(COUNT + 1):
                        stall[stage] += went[place, 2 + stage]
            else:
                since = at[NOW]
                for stage in range(COUNT + 1):
                    stalled[stage] = stall[stage]
                for load in range(first_load, then):
                    drop_for(plan, at, servers, loads, live, load)
                waiting = to_await(
                    m,
                    at,
                    servers,
                    loads,
                    live,
                    load_of,
                    first_use,
                    last_use,
                    plan.first_load + first_load,
                    awaited,
                )
                clocks.late[step] += waiting - (then - first_load)
                for load in range(first_load, then):
                    work(m, at, servers, loads, live, m[SUBMIT])
                    ask_for(plan, at, servers, loads, live, load, True)
                nth = 0  # the awaited are in router order; the residents are those between them
                for use in range(first_use, last_use):
                    if nth < waiting and awaited[nth] == use:
                        nth += 1
                    else:
                        work(m, at, servers, loads, live, durations[run[use]])
                idle = 0
                while waiting:
                    nth = first_ready(loads, load_of, awaited, waiting)
                    if nth == NONE:
                        waited = at[NOW]
                        while nth == NONE:
                            until_something_ends(m, at, servers, loads, live)
                            nth = first_ready(loads, load_of, awaited, waiting)
                        pause(m, at, servers, loads, live, m[WAKE])
                        load = load_of[awaited[nth]]
                        split(waited, at[NOW], loads[load, END : END + COUNT], stall)
                        idle += at[NOW] - waited
                        if len(waits):
                            waits[awaited[nth], 0], waits[awaited[nth], 1] = waited, at[NOW]
                    use = awaited[nth]
                    waiting -= 1
                    for later in range(nth, waiting):
                        awaited[later] = awaited[later + 1]
                    work(m, at, servers, loads, live, durations[run[use]])
                for load in range(then, last_load):
                    work(m, at, servers, loads, live, m[SUBMIT])
                    drop_for(plan, at, servers, loads, live, load)
                    ask_for(plan, at, servers, loads, live, load, False)
                if place != NONE and at[ACTIVE] == 0 and at[LIVE] == 0:
                    keep(memory, place, key, at[NOW] - since, idle, stalled, stall)
            if idle or at[COLD]:
                at[COLD] = cold_after(
                    at[COLD],
                    idle,
                    machine.cooling_idle,
                    machine.cooling_extra,
                    machine.still_cold,
                )
            first_use, first_load = last_use, last_load
            lookup += 1
        work(m, at, servers, loads, live, durations[head[step]] + at[COLD])
        clocks.end[step] = at[NOW]


@compiled
def to_await(
    m: Ints,
    at: Ints,
    servers: Ints,
    loads: Ints,
    live: Ints,
    load_of: Ints,
    first_use: int,
    last_use: int,
    first: int,
    awaited: Ints,
) -> int:
    """Note the uses whose load is not there yet, and raise prefetches; returns how many.

    Args:
        load_of: [uses] ids.
        first_use: of the lookup.
        last_use: of the lookup, and one.
        first: id of the first load that the lookup itself asks for.
        awaited: [uses of a lookup] filled, in router order.
    """
    waiting = 0
    for use in range(first_use, last_use):
        load = load_of[use]
        if load >= first:
            awaited[waiting] = use
            waiting += 1
        elif load != NONE and loads[load, READY] == NONE:
            raise_to_demand(at, servers, loads, load)
            awaited[waiting] = use
            waiting += 1
    return waiting


@compiled
def first_ready(loads: Ints, load_of: Ints, awaited: Ints, waiting: int) -> int:
    """Place in `awaited` of who became ready first; of equals, in router order; or NONE."""
    chosen, earliest = NONE, NEVER
    for nth in range(waiting):
        ready = loads[load_of[awaited[nth]], READY]
        if ready != NONE and ready < earliest:
            chosen, earliest = nth, ready
    return chosen


@compiled
def drop_for(plan: Plan, at: Ints, servers: Ints, loads: Ints, live: Ints, load: int) -> None:
    """Give up the prefetches whose place this load takes."""
    for nth in range(plan.drops_to[load - 1] if load else 0, plan.drops_to[load]):
        drop(at, servers, loads, live, plan.drop[nth])


@compiled
def ask_for(
    plan: Plan, at: Ints, servers: Ints, loads: Ints, live: Ints, load: int, urgent: bool
) -> None:
    """Ask for a load of the plan."""
    number, kind = plan.first_load + load, plan.kind[load]
    for stage in range(COUNT):
        loads[number, STAGE + stage] = plan.kinds.stages[kind, stage]
    loads[number, CHUNKS] = plan.kinds.chunks[kind]
    ask(at, servers, loads, live, number, urgent)


@compiled
def work(m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints, duration: int) -> None:
    """Compute works for `duration` ps if undisturbed; what takes nothing is over at once."""
    if duration == 0:
        return
    starts(m, at, servers, loads, live)
    if at[ACTIVE] == 0 and at[LIVE] == 0:
        at[NOW] += duration
        return
    compute_begins(m, at, servers, duration)
    while True:
        at[NOW] = min(at[UNTIL], next_end(servers))
        ends(m, at, servers, loads, live)
        if at[UNTIL] == at[NOW]:
            compute_ends(m, at, servers)
            ends(m, at, servers, loads, live)  # a decoder, undisturbed now, may be through too
            return
        starts(m, at, servers, loads, live)


@compiled
def pause(m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints, duration: int) -> None:
    """Compute does nothing for `duration` ps."""
    until = at[NOW] + duration
    while at[NOW] < until:
        starts(m, at, servers, loads, live)
        at[NOW] = min(until, next_end(servers))
        ends(m, at, servers, loads, live)


@compiled
def until_something_ends(m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints) -> None:
    """Compute does nothing until a server is through with what it does."""
    starts(m, at, servers, loads, live)
    at[NOW] = next_end(servers)
    ends(m, at, servers, loads, live)
