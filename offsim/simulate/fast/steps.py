"""Compute in the fast engine: what `offsim.simulate.engine` says, compiled."""

import numba
import numpy as np

from offsim.record.stall import split_ps
from offsim.simulate.clock import Ints, coldness
from offsim.simulate.fast.memory import Memory, keep, key_of, place_of
from offsim.simulate.fast.state import ACTIVE, COLD, LIVE, NEVER, NOW, UNTIL, State
from offsim.simulate.fast.stations import (
    ask,
    compiled,
    compute_begins,
    compute_ends,
    drop,
    ends,
    next_end,
    starts,
)
from offsim.simulate.plan import NONE, Clocks, Machine, Plan

cold_after = numba.njit(cache=True, error_model="numpy")(coldness)
split = numba.njit(cache=True)(split_ps)


@compiled
def run_steps(m: Machine, plan: Plan, st: State, clocks: Clocks, memory: Memory) -> None:
    """Go through the steps of a plan."""
    layers, events = plan.layers, len(clocks.waits) > 0
    remembers = len(memory.keys) > 0
    uses = 0
    for number in range(len(plan.uses_to)):
        first = plan.uses_to[number - 1] if number else 0
        uses = max(uses, plan.uses_to[number] - first)
    order = np.empty(uses, np.int64)
    for step in range(len(plan.begin)):
        pause(m, st, max(0, plan.begin[step] - st.at[NOW]))
        clocks.start[step] = st.at[NOW]
        stall = clocks.stall[step]
        for lookup in range(step * layers, (step + 1) * layers):
            before = plan.durations[plan.before[lookup]] + st.at[COLD]
            work(m, st, before)
            idle = 0
            if remembers and st.at[ACTIVE] == 0 and st.at[LIVE] == 0:
                key = key_of(plan, memory, lookup)
                place = place_of(memory, key)
                if place != NONE and memory.keys[place] == key:
                    st.at[NOW] += memory.went[place, 0]
                    idle = memory.went[place, 1]
                    if idle:
                        for stage in range(len(stall)):
                            stall[stage] += memory.went[place, 2 + stage]
                else:
                    since, stalled = st.at[NOW], stall.copy()
                    idle = experts(m, plan, st, clocks, lookup, order, stall, events)
                    if place != NONE and st.at[ACTIVE] == 0 and st.at[LIVE] == 0:
                        keep(memory, place, key, st.at[NOW] - since, idle, stall - stalled)
            else:
                clocks.late[step] += late_ones(plan, st, lookup)
                idle = experts(m, plan, st, clocks, lookup, order, stall, events)
            if idle or st.at[COLD]:
                st.at[COLD] = cold_after(
                    st.at[COLD], idle, m.cooling_idle, m.cooling_extra, m.still_cold
                )
        work(m, st, plan.durations[plan.head[step]] + st.at[COLD])
        clocks.end[step] = st.at[NOW]


@compiled
def late_ones(plan: Plan, st: State, lookup: int) -> int:
    """How many experts of a lookup a prefetch still brings."""
    first_use = plan.uses_to[lookup - 1] if lookup else 0
    first = plan.first_load + (plan.loads_to[lookup - 1] if lookup else 0)
    late = 0
    for use in range(first_use, plan.uses_to[lookup]):
        load = plan.load[use]
        late += load != NONE and load < first and st.ready[load] == NONE
    return late


@compiled
def experts(
    m: Machine,
    plan: Plan,
    st: State,
    clocks: Clocks,
    lookup: int,
    awaited: Ints,
    stall: Ints,
    events: bool,
) -> int:
    """The experts of one layer; returns how long compute stood idle, ps."""
    first_use = plan.uses_to[lookup - 1] if lookup else 0
    first = plan.loads_to[lookup - 1] if lookup else 0
    then, last = plan.demands_to[lookup], plan.loads_to[lookup]
    for load in range(first, then):
        drop_for(plan, st, load)
    waiting = 0
    for use in range(first_use, plan.uses_to[lookup]):
        load = plan.load[use]
        if load >= plan.first_load + first:
            awaited[waiting] = use
            waiting += 1
        elif load != NONE and st.ready[load] == NONE:
            st.urgent[load] = True
            awaited[waiting] = use
            waiting += 1
    for load in range(first, then):
        work(m, st, m.submit)
        ask_for(m, plan, st, load, True)
    at = 0  # the awaited are in router order, so the residents are those between them
    for use in range(first_use, plan.uses_to[lookup]):
        if at < waiting and awaited[at] == use:
            at += 1
        else:
            work(m, st, plan.durations[plan.run[use]])
    idle = 0
    while waiting:
        at = first_ready(plan, st, awaited, waiting)
        if at == NONE:
            since = st.at[NOW]
            while at == NONE:
                until_ready(m, st)
                at = first_ready(plan, st, awaited, waiting)
            pause(m, st, m.wake)
            use = awaited[at]
            split(since, st.at[NOW], st.served[plan.load[use], :, 1], stall)
            if events:
                clocks.waits[use, 0], clocks.waits[use, 1] = since, st.at[NOW]
            idle += st.at[NOW] - since
        use = awaited[at]
        waiting -= 1
        for later in range(at, waiting):
            awaited[later] = awaited[later + 1]
        work(m, st, plan.durations[plan.run[use]])
    for load in range(then, last):
        work(m, st, m.submit)
        drop_for(plan, st, load)
        ask_for(m, plan, st, load, False)
    return idle


@compiled
def first_ready(plan: Plan, st: State, awaited: Ints, waiting: int) -> int:
    """Who became ready first; of equals, in router order."""
    chosen = NONE
    earliest = NEVER
    for at in range(waiting):
        ready = st.ready[plan.load[awaited[at]]]
        if ready != NONE and ready < earliest:
            chosen, earliest = at, ready
    return chosen


@compiled
def drop_for(plan: Plan, st: State, load: int) -> None:
    """Give up the prefetches whose place this load takes."""
    for at in range(plan.drops_to[load - 1] if load else 0, plan.drops_to[load]):
        drop(st, plan.drop[at])


@compiled
def ask_for(m: Machine, plan: Plan, st: State, load: int, urgent: bool) -> None:
    """Ask for a load of the plan."""
    number, kind = plan.first_load + load, plan.kind[load]
    for stage in range(len(st.poked)):
        st.stages[number, stage] = plan.kinds.stages[kind, stage]
    st.chunks[number] = plan.kinds.chunks[kind]
    ask(m, st, number, urgent)


@compiled
def work(m: Machine, st: State, duration: int) -> None:
    """Compute works for `duration` ps if undisturbed; what takes nothing is over at once."""
    if duration == 0:
        return
    starts(m, st)
    if st.at[ACTIVE] == 0 and st.at[LIVE] == 0:
        st.at[NOW] += duration
        return
    compute_begins(m, st, duration)
    while True:
        st.at[NOW] = min(st.at[UNTIL], next_end(st))
        ends(m, st)
        if st.at[UNTIL] == st.at[NOW]:
            compute_ends(m, st)
            ends(m, st)  # a decoder that goes on undisturbed may be done by now
            return
        starts(m, st)


@compiled
def pause(m: Machine, st: State, duration: int) -> None:
    """Compute does nothing for `duration` ps."""
    if duration == 0:
        return
    until = st.at[NOW] + duration
    while True:
        starts(m, st)
        st.at[NOW] = min(until, next_end(st))
        ends(m, st)
        if st.at[NOW] == until:
            return


@compiled
def until_ready(m: Machine, st: State) -> None:
    """Compute does nothing until the next instant at which a server ends something."""
    starts(m, st)
    st.at[NOW] = next_end(st)
    ends(m, st)
