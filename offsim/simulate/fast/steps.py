"""Compute in the fast engine: what `offsim.simulate.engine` says, compiled.

Arguments, in all functions: `st`, `loads` and `live` as in `offsim.simulate.fast.state`.
"""

from typing import NamedTuple

from offsim.record.stall import split_ps
from offsim.simulate.clock import Ints, coldness
from offsim.simulate.fast.compiled import called, compiled
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
    POKED,
    READY,
    STAGE,
    SUBMIT,
    UNTIL,
    WAKE,
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


class Scratch(NamedTuple):
    """Room for what is done at one lookup.

    Attributes:
        awaited: [uses of a lookup, at most] those whose load is not there yet, in router order.
        stall: [stages + 1] of its step before it.
    """

    awaited: Ints
    stall: Ints


@compiled
def run_steps(
    machine: Machine,
    plan: Plan,
    st: Ints,
    loads: Ints,
    live: Ints,
    clocks: Clocks,
    memory: Memory,
    scratch: Scratch,
) -> None:
    """Go through the steps of a plan.

    Args:
        machine: its cooling; the rest is in `st`.
        plan: what to do.
        st: gone on from.
        loads: filled.
        live: gone on from.
        clocks: filled.
        memory: of layers.
        scratch: room.
    """
    lookup = first_use = first_load = 0
    for step in range(len(plan.begin)):
        pause(st, loads, live, max(0, plan.begin[step] - st[NOW]))
        clocks.start[step] = st[NOW]
        for _ in range(plan.layers):
            work(st, loads, live, plan.durations[plan.before[lookup]] + st[COLD])
            place, key = NONE, 0
            if len(memory.keys) and quiet(st):
                last_use, last_load = plan.uses_to[lookup], plan.loads_to[lookup]
                key = key_of(memory, plan, first_use, last_use, first_load, last_load)
                place = place_of(memory, key)
            if place != NONE and memory.keys[place] == key:
                idle = as_before(st, memory, place, clocks.stall[step])
            else:
                since, stall = st[NOW], clocks.stall[step]
                for stage in range(COUNT + 1):
                    scratch.stall[stage] = stall[stage]
                idle = experts(
                    plan, st, loads, live, clocks, step, lookup, first_use, first_load, scratch
                )
                if place != NONE and quiet(st):
                    keep(memory, place, key, st[NOW] - since, idle, scratch.stall, stall)
            if idle or st[COLD]:
                st[COLD] = cold_after(
                    st[COLD],
                    idle,
                    machine.cooling_idle,
                    machine.cooling_extra,
                    machine.still_cold,
                )
            first_use, first_load = plan.uses_to[lookup], plan.loads_to[lookup]
            lookup += 1
        work(st, loads, live, plan.durations[plan.head[step]] + st[COLD])
        clocks.end[step] = st[NOW]


@compiled
def quiet(st: Ints) -> bool:
    """Whether nothing is on its way and nobody is waking up."""
    return st[ACTIVE] == 0 and st[LIVE] == 0


@compiled
def as_before(st: Ints, memory: Memory, place: int, stall: Ints) -> int:
    """A layer goes as one before it did; returns how long compute stood idle, ps."""
    st[NOW] += memory.went[place, 0]
    idle: int = memory.went[place, 1]
    if idle:
        for stage in range(COUNT + 1):
            stall[stage] += memory.went[place, 2 + stage]
    return idle


@compiled
def experts(
    plan: Plan,
    st: Ints,
    loads: Ints,
    live: Ints,
    clocks: Clocks,
    step: int,
    lookup: int,
    first_use: int,
    first_load: int,
    scratch: Scratch,
) -> int:
    """The experts of one layer; returns how long compute stood idle, ps."""
    awaited, last_use = scratch.awaited, plan.uses_to[lookup]
    then, last_load = plan.demands_to[lookup], plan.loads_to[lookup]
    for load in range(first_load, then):
        drop_for(plan, st, loads, live, load)
    waiting = to_await(plan, st, loads, live, first_use, last_use, first_load, awaited)
    clocks.late[step] += waiting - (then - first_load)
    for load in range(first_load, then):
        work(st, loads, live, st[SUBMIT])
        ask_for(plan, st, loads, live, load, True)
    nth = 0  # the awaited are in router order, so the residents are those between them
    for use in range(first_use, last_use):
        if nth < waiting and awaited[nth] == use:
            nth += 1
        else:
            work(st, loads, live, plan.durations[plan.run[use]])
    idle = 0
    while waiting:
        since = st[NOW]
        nth = first_ready(plan, st, loads, live, awaited, waiting)
        if nth == NONE:
            while nth == NONE:
                until_something_ends(st, loads, live)
                nth = first_ready(plan, st, loads, live, awaited, waiting)
            pause(st, loads, live, st[WAKE])
            use, now = awaited[nth], st[NOW]
            split(since, now, loads[plan.load[use], END : END + COUNT], clocks.stall[step])
            idle += now - since
            if len(clocks.waits):
                clocks.waits[use, 0], clocks.waits[use, 1] = since, now
        use = awaited[nth]
        waiting -= 1
        for later in range(nth, waiting):
            awaited[later] = awaited[later + 1]
        work(st, loads, live, plan.durations[plan.run[use]])
    for load in range(then, last_load):
        work(st, loads, live, st[SUBMIT])
        drop_for(plan, st, loads, live, load)
        ask_for(plan, st, loads, live, load, False)
    return idle


@compiled
def to_await(
    plan: Plan,
    st: Ints,
    loads: Ints,
    live: Ints,
    first_use: int,
    last_use: int,
    first_load: int,
    awaited: Ints,
) -> int:
    """Note the uses whose load is not there yet, and raise prefetches; returns how many."""
    waiting = 0
    for use in range(first_use, last_use):
        load = plan.load[use]
        if load >= plan.first_load + first_load:
            awaited[waiting] = use
            waiting += 1
        elif load != NONE and loads[load, READY] == NONE:
            raise_to_demand(st, loads, load)
            awaited[waiting] = use
            waiting += 1
    return waiting


@compiled
def first_ready(plan: Plan, st: Ints, loads: Ints, live: Ints, awaited: Ints, waiting: int) -> int:
    """Place in `awaited` of who became ready first; of equals, in router order; or NONE."""
    chosen, earliest = NONE, NEVER
    for nth in range(waiting):
        ready = loads[plan.load[awaited[nth]], READY]
        if ready != NONE and ready < earliest:
            chosen, earliest = nth, ready
    return chosen


@compiled
def drop_for(plan: Plan, st: Ints, loads: Ints, live: Ints, load: int) -> None:
    """Give up the prefetches whose place this load takes."""
    for nth in range(plan.drops_to[load - 1] if load else 0, plan.drops_to[load]):
        drop(st, loads, live, plan.drop[nth])


@compiled
def ask_for(plan: Plan, st: Ints, loads: Ints, live: Ints, load: int, urgent: bool) -> None:
    """Ask for a load of the plan."""
    number, kind = plan.first_load + load, plan.kind[load]
    for stage in range(COUNT):
        loads[number, STAGE + stage] = plan.kinds.stages[kind, stage]
    loads[number, CHUNKS] = plan.kinds.chunks[kind]
    ask(st, loads, live, number, urgent)


@compiled
def work(st: Ints, loads: Ints, live: Ints, duration: int) -> None:
    """Compute works for `duration` ps if undisturbed; what takes nothing is over at once."""
    if duration == 0:
        return
    if quiet(st) and not st[POKED]:  # nobody is there who could disturb it
        st[NOW] += duration
    else:
        work_among_others(st, loads, live, duration)


@called
def work_among_others(st: Ints, loads: Ints, live: Ints, duration: int) -> None:
    """The same where something may be on its way."""
    starts(st, loads, live)
    if quiet(st):
        st[NOW] += duration
        return
    compute_begins(st, duration)
    while True:
        st[NOW] = min(st[UNTIL], next_end(st))
        ends(st, loads, live)
        if st[UNTIL] == st[NOW]:
            compute_ends(st)
            ends(st, loads, live)  # a decoder, undisturbed now, may be through too
            return
        starts(st, loads, live)


@called
def pause(st: Ints, loads: Ints, live: Ints, duration: int) -> None:
    """Compute does nothing for `duration` ps."""
    until = st[NOW] + duration
    while st[NOW] < until:
        starts(st, loads, live)
        st[NOW] = min(until, next_end(st))
        ends(st, loads, live)


@called
def until_something_ends(st: Ints, loads: Ints, live: Ints) -> None:
    """Compute does nothing until a server is through with what it does."""
    starts(st, loads, live)
    st[NOW] = next_end(st)
    ends(st, loads, live)
