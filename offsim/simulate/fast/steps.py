"""Compute in the fast engine: what `offsim.simulate.engine` says, compiled.

Where compute and decoders do not slow each other down, compute goes ahead of the servers, and they
are settled when it deals with them.

Arguments, in all functions: `s` as in `offsim.simulate.fast.state`, or its arrays `st`, `rows` and
`live`.
"""

from typing import NamedTuple

from offsim.record.stall import split_ps
from offsim.simulate.clock import Ints, coldness
from offsim.simulate.fast.compiled import SURE, called, compiled
from offsim.simulate.fast.memory import (
    DURATION,
    IDLE,
    LATE,
    STALL,
    WHAT,
    Memory,
    drops_before,
    keep,
    key_of,
    pays,
    place_of,
)
from offsim.simulate.fast.state import (
    ACTIVE,
    AHEAD,
    CHUNKS,
    COLD,
    COMPUTE_RATE,
    CONTENDED,
    COUNTED,
    END,
    EXPERT_RATE,
    FETCH,
    FREE,
    LIVE,
    NEVER,
    NEXT,
    NOW,
    NUMBER,
    OTHER_RATE,
    PATH,
    POKED,
    READY,
    ROW,
    SERVING,
    STAGE,
    SUBMIT,
    TIME,
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
    raise_to_demand,
    release,
    starts,
)
from offsim.simulate.plan import NONE, Clocks, Machine, Plan

cold_after = compiled(coldness)
split = compiled(split_ps)


class Scratch(NamedTuple):
    """Room for what is done at one lookup.

    Attributes:
        awaited: [uses of a lookup, at most] those whose load is not there yet, in router order.
        loads: [the same] rows of their loads.
        ends: [used stages] when a load left each.
        stall: [used stages + 1] of its step before it.
    """

    awaited: Ints
    loads: Ints
    ends: Ints
    stall: Ints


@compiled
def run_steps(
    machine: Machine,
    plan: Plan,
    first: int,
    s: State,
    clocks: Clocks,
    memory: Memory,
    scratch: Scratch,
) -> int:
    """Go through the steps of a plan as long as there are rows; returns the first not begun.

    Args:
        machine: its cooling; the rest is in `s`.
        plan: what to do.
        first: the step to begin with.
        s: gone on from; every load of the plan has an id in it.
        clocks: filled; their stall is that of the used stages, and of the hand-over.
        memory: of layers.
        scratch: room.
    """
    st, rows, live = s.st, s.rows, s.live
    lookup = first * plan.layers & SURE
    first_use = plan.uses_to[lookup - 1] if lookup else 0
    first_load = plan.loads_to[lookup - 1] if lookup else 0
    for step in range(first, len(plan.begin)):
        if plan.loads_to[lookup + plan.layers - 1] - first_load > st[FREE]:
            return step
        catch_up(st, rows, live)
        pause(st, rows, live, max(0, plan.begin[step] - st[NOW]))
        clocks.start[step] = st[NOW]
        ahead = first_load  # from here on loads are fetched ahead, once the layer before is done
        for _ in range(plan.layers):
            dense = plan.durations[plan.before[lookup] & SURE] + st[COLD]
            if ahead == first_load:
                work(st, rows, live, dense)
                dense = 0
            idle = layer(
                plan, s, clocks, memory, scratch, step, lookup, first_use, ahead, first_load, dense
            )
            if idle or st[COLD]:
                st[COLD] = cold_after(
                    st[COLD],
                    idle,
                    machine.cooling_idle,
                    machine.cooling_extra,
                    machine.still_cold,
                )
            first_use, ahead = plan.uses_to[lookup], plan.demands_to[lookup]
            first_load = plan.loads_to[lookup]
            lookup = lookup + 1 & SURE
        fetch_ahead(plan, s, ahead, first_load)
        work(st, rows, live, plan.durations[plan.head[step]] + st[COLD])
        clocks.end[step] = st[NOW] + st[AHEAD]
    catch_up(st, rows, live)
    return len(plan.begin)


@compiled
def quiet(st: Ints) -> bool:
    """Whether nothing is on its way and nobody is waking up, or stopped in this instant."""
    return st[ACTIVE] == 0 and st[LIVE] == 0 and st[POKED] == 0


@compiled
def layer(
    plan: Plan,
    s: State,
    clocks: Clocks,
    memory: Memory,
    scratch: Scratch,
    step: int,
    lookup: int,
    first_use: int,
    ahead: int,
    first_load: int,
    dense: int,
) -> int:
    """One layer, with what is fetched ahead before it; returns how long compute stood idle, ps."""
    st, rows, live = s.st, s.rows, s.live
    stall = clocks.stall[step]
    place, key = NONE, 0
    if pays(memory, lookup):
        catch_up(st, rows, live)
        if quiet(st):
            last_use, then = plan.uses_to[lookup], plan.demands_to[lookup]
            key = key_of(memory, plan, first_use, last_use, ahead, first_load, then)
            place = place_of(memory, key, dense)
    if place != NONE and memory.kept[place & SURE, WHAT] == key:
        return as_before(st, memory, place, clocks.late, stall, step)
    memory.counts[1] += 1
    since, late = st[NOW] + st[AHEAD], clocks.late[step]
    for part in range(len(stall)):
        scratch.stall[part] = stall[part]
    fetch_ahead(plan, s, ahead, first_load)
    work(st, rows, live, dense)
    idle = experts(plan, s, clocks, step, lookup, first_use, first_load, scratch)
    if place != NONE:
        catch_up(st, rows, live)
        if quiet(st):
            took, late = st[NOW] - since, clocks.late[step] - late
            keep(memory, place, key, dense, took, idle, late, scratch.stall, stall)
    return idle


@compiled
def as_before(st: Ints, memory: Memory, place: int, lates: Ints, stall: Ints, step: int) -> int:
    """A layer goes as one before it did; returns how long compute stood idle, ps."""
    kept = memory.kept
    place &= SURE
    st[NOW] += kept[place, DURATION]
    idle: int = kept[place, IDLE]
    if kept[place, LATE]:
        lates[step] += kept[place, LATE]
    if idle:
        for part in range(len(stall)):
            stall[part] += kept[place, STALL + part]
    return idle


@compiled
def fetch_ahead(plan: Plan, s: State, first: int, last: int) -> None:
    """Ask for what is fetched ahead once a layer is done."""
    for load in range(first, last):
        work(s.st, s.rows, s.live, s.st[FETCH])
        drop_for(plan, s, load, load + 1)
        ask_for(plan, s, load, False)


@compiled
def experts(
    plan: Plan,
    s: State,
    clocks: Clocks,
    step: int,
    lookup: int,
    first_use: int,
    first_load: int,
    scratch: Scratch,
) -> int:
    """The experts of one layer; returns how long compute stood idle, ps."""
    st, rows, live = s.st, s.rows, s.live
    awaited, last_use = scratch.awaited, plan.uses_to[lookup]
    then = plan.demands_to[lookup]
    drop_for(plan, s, first_load, then)
    waiting = to_await(plan, s, first_use, last_use, first_load, awaited)
    clocks.late[step] += waiting - (then - first_load)
    for load in range(first_load, then):
        work(st, rows, live, st[SUBMIT])
        ask_for(plan, s, load, True)
    st[COMPUTE_RATE] = st[EXPERT_RATE]
    nth = 0  # the awaited are in router order, so the residents are those between them
    for at in range(first_use, last_use):
        use = at & SURE
        if nth < waiting and awaited[nth] == use:
            scratch.loads[nth] = ROW * s.row_of[plan.load[use]]
            nth += 1
        else:
            work(st, rows, live, plan.durations[plan.run[use] & SURE])
    idle = 0
    while waiting:
        catch_up(st, rows, live)
        since = st[NOW]
        nth = first_ready(rows, scratch.loads, waiting)
        if nth == NONE:
            while nth == NONE:
                until_something_ends(st, rows, live)
                nth = first_ready(rows, scratch.loads, waiting)
            pause(st, rows, live, st[WAKE])
            idle += st[NOW] - since
            note_wait(st, rows, scratch, clocks, step, nth, since)
        release(st, rows, live, scratch.loads[nth])
        use = awaited[nth] & SURE
        waiting -= 1
        for later in range(nth, waiting):
            awaited[later], scratch.loads[later] = awaited[later + 1], scratch.loads[later + 1]
        work(st, rows, live, plan.durations[plan.run[use] & SURE])
    st[COMPUTE_RATE] = st[OTHER_RATE]
    return idle


@compiled
def to_await(
    plan: Plan, s: State, first_use: int, last_use: int, first_load: int, awaited: Ints
) -> int:
    """Note the uses whose load is not there yet, and raise prefetches; returns how many."""
    waiting = 0
    for at in range(first_use, last_use):
        use = at & SURE
        load = plan.load[use]
        if load >= plan.first_load + first_load:
            awaited[waiting] = use
            waiting += 1
        elif load != NONE:
            catch_up(s.st, s.rows, s.live)
            row = int(s.row_of[load]) * ROW & SURE
            if s.rows[row + NUMBER] == load and s.rows[row + READY] == NONE:
                raise_to_demand(s.st, s.rows, row)
                awaited[waiting] = use
                waiting += 1
    return waiting


@compiled
def first_ready(rows: Ints, loads: Ints, waiting: int) -> int:
    """Which of the awaited became ready first; of equals, in router order; or NONE."""
    chosen, earliest = NONE, NEVER
    for nth in range(waiting):
        ready = rows[(loads[nth] & SURE) + READY]
        if ready != NONE and ready < earliest:
            chosen, earliest = nth, ready
    return chosen


@compiled
def note_wait(
    st: Ints, rows: Ints, scratch: Scratch, clocks: Clocks, step: int, nth: int, since: int
) -> None:
    """A wait for one of the awaited is over."""
    for stage in range(st[COUNTED]):
        scratch.ends[stage] = rows[scratch.loads[nth] + PATH + stage * STAGE + END]
    split(since, st[NOW], scratch.ends, clocks.stall[step])
    if len(clocks.waits):
        use = scratch.awaited[nth]
        clocks.waits[use, 0], clocks.waits[use, 1] = since, st[NOW]


@compiled
def drop_for(plan: Plan, s: State, first: int, last: int) -> None:
    """Give up the prefetches whose places these loads take."""
    for nth in range(drops_before(plan, first), drops_before(plan, last)):
        catch_up(s.st, s.rows, s.live)
        row = int(s.row_of[plan.drop[nth]]) * ROW & SURE
        if s.rows[row + NUMBER] == plan.drop[nth] and s.rows[row + READY] == NONE:
            drop(s.st, s.rows, s.live, row)


@compiled
def ask_for(plan: Plan, s: State, load: int, urgent: bool) -> None:
    """Ask for a load of the plan."""
    st, rows = s.st, s.rows
    catch_up(st, rows, s.live)
    row = s.live[len(s.live) - st[FREE]] & SURE
    st[FREE] -= 1
    number, kind = plan.first_load + load & SURE, plan.kind[load & SURE] & SURE
    s.row_of[number] = row // ROW
    rows[row + NUMBER], rows[row + CHUNKS] = number, plan.kinds.chunks[kind]
    for stage in range(st[COUNTED]):
        rows[row + PATH + stage * STAGE + TIME] = plan.kinds.stages[kind, stage]
    ask(st, rows, s.live, row, urgent)


@compiled
def work(st: Ints, rows: Ints, live: Ints, duration: int) -> None:
    """Compute works for `duration` ps if undisturbed; what takes nothing is over at once."""
    if quiet(st):  # nobody is there
        st[NOW] += duration
    elif not st[CONTENDED]:
        st[AHEAD] += duration
    elif not st[POKED] and not st[SERVING] and st[NEXT] > st[NOW] + duration:
        st[NOW] += duration
    elif duration:
        work_among_others(st, rows, live, duration)


@called
def work_among_others(st: Ints, rows: Ints, live: Ints, duration: int) -> None:
    """The same where something may be on its way."""
    starts(st, rows, live)
    if quiet(st):
        st[NOW] += duration
        return
    compute_begins(st, duration)
    while True:
        st[NOW] = min(st[UNTIL], st[NEXT])
        ends(st, rows, live)
        if st[UNTIL] == st[NOW]:
            compute_ends(st)
            ends(st, rows, live)  # a decoder, undisturbed now, may be through too
            return
        starts(st, rows, live)


@compiled
def catch_up(st: Ints, rows: Ints, live: Ints) -> None:
    """The servers are settled up to where compute is."""
    if st[AHEAD]:
        duration, st[AHEAD] = st[AHEAD], 0
        pause(st, rows, live, duration)


@compiled
def pause(st: Ints, rows: Ints, live: Ints, duration: int) -> None:
    """Time passes for the servers, `duration` ps."""
    until = st[NOW] + duration
    if st[POKED] or st[NEXT] <= until:
        settle(st, rows, live, until)
    else:
        st[NOW] = until


@called
def settle(st: Ints, rows: Ints, live: Ints, until: int) -> None:
    """The same where something may happen meanwhile."""
    while st[NOW] < until:
        starts(st, rows, live)
        st[NOW] = min(until, st[NEXT])
        ends(st, rows, live)


@called
def until_something_ends(st: Ints, rows: Ints, live: Ints) -> None:
    """Compute does nothing until a server is through with what it does."""
    starts(st, rows, live)
    st[NOW] = st[NEXT]
    ends(st, rows, live)
