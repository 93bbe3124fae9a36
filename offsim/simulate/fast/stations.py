"""Stations of the fast engine: what `offsim.simulate.station` says, compiled.

An instant goes in two parts: `ends` settles everything that ends at it, `starts` begins what can
begin. Between the two compute does what it does at that instant.

The link does not stop at each chunk, only at those after which its choice may be another: `_cut`
ends what it carries at the next chunk when a load comes to it, is raised or given up.

Arguments, in all functions: `m` [MACHINE], and `at`, `servers`, `loads`, `live` as in `State`.
"""

from offsim.simulate.clock import UNDISTURBED, Ints, served, stretched
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.fast.state import (
    ACTIVE,
    ASKED,
    BEGAN,
    BUSY,
    CHUNKS,
    COMPUTE_RATE,
    COUNT,
    DECODE_RATE,
    DECODER,
    DONE,
    END,
    ENDING,
    ENDS,
    FRESH,
    GONE,
    HANDOVER,
    IDLE,
    JOB,
    LEFT,
    LINK,
    LIVE,
    MODE,
    NEVER,
    NOW,
    PIPELINED,
    POKED,
    READY,
    RUN,
    SERVED,
    SERVERS,
    SERVING,
    SINCE,
    STAGE,
    START,
    STATION,
    UNTIL,
    URGENT,
    WAKING,
    WORK,
    WORKING,
)
from offsim.simulate.plan import NONE

stretch = compiled(stretched)
serve = compiled(served)


@compiled
def next_end(servers: Ints) -> int:
    """When the next server is through with what it does, ps; NEVER where all are idle."""
    first = NEVER
    for server in range(len(servers)):
        first = min(first, servers[server, ENDS])
    return first


@compiled
def ask(at: Ints, servers: Ints, loads: Ints, live: Ints, load: int, urgent: bool) -> None:
    """Start a load on its path; its stages and chunks are filled in."""
    loads[load, URGENT], loads[load, GONE] = urgent, False
    loads[load, READY], loads[load, ASKED] = NONE, at[NOW]
    for stage in range(COUNT):
        loads[load, DONE + stage] = loads[load, SERVED + stage] = 0
        loads[load, START + stage] = loads[load, END + stage] = NONE
    live[at[LIVE]] = load
    at[LIVE] += 1
    _skip(loads, load, 0)
    _poke_next(at, servers, loads, load, 0)


@compiled
def raise_to_demand(at: Ints, servers: Ints, loads: Ints, load: int) -> None:
    """A load that was fetched ahead is asked for."""
    loads[load, URGENT] = 1
    _cut(at, servers, loads)


@compiled
def drop(at: Ints, servers: Ints, loads: Ints, live: Ints, load: int) -> None:
    """Give up a load: what is being served goes on to its end, on the link of its chunk."""
    _cut(at, servers, loads)
    loads[load, GONE] = True
    if loads[load, READY] == NONE and not _in_service(loads, load):
        _off(at, live, load)


@compiled
def compute_begins(m: Ints, at: Ints, servers: Ints, duration: int) -> None:
    """Compute works from now on."""
    at[WORKING], at[LEFT], at[SINCE] = 1, duration, at[NOW]
    at[UNTIL] = at[NOW] + stretch(duration, m[COMPUTE_RATE] if at[SERVING] else UNDISTURBED)
    if at[SERVING]:
        _decoders_go_on(m, at, servers, UNDISTURBED, m[DECODE_RATE])


@compiled
def compute_ends(m: Ints, at: Ints, servers: Ints) -> None:
    """Compute has done its work."""
    at[WORKING], at[UNTIL] = 0, NEVER
    if at[SERVING]:
        _decoders_go_on(m, at, servers, m[DECODE_RATE], UNDISTURBED)


@compiled
def _decoders_go_on(m: Ints, at: Ints, servers: Ints, before: int, after: int) -> None:
    """Decoders that are at work go on at another rate."""
    now = at[NOW]
    for server in range(len(servers)):
        if servers[server, STATION] == m[DECODER] and servers[server, MODE] == BUSY:
            done = serve(now - servers[server, BEGAN], before)
            servers[server, WORK] = max(0, servers[server, WORK] - done)
            servers[server, BEGAN] = now
            servers[server, ENDS] = now + stretch(servers[server, WORK], after)


@compiled
def _compute_goes_on(at: Ints, before: int, after: int) -> None:
    """Compute, if it works, goes on at another rate."""
    if at[WORKING]:
        at[LEFT] = max(0, at[LEFT] - serve(at[NOW] - at[SINCE], before))
        at[SINCE] = at[NOW]
        at[UNTIL] = at[NOW] + stretch(at[LEFT], after)


@compiled
def ends(m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints) -> None:
    """Everything of the stations that ends now."""
    for server in range(len(servers)):
        if servers[server, ENDS] == at[NOW]:
            if servers[server, MODE] == BUSY:
                _served(m, at, servers, loads, live, server)
            servers[server, MODE], servers[server, ENDS] = IDLE, NEVER
            servers[server, FRESH] = 1
            at[ACTIVE] -= 1
            at[POKED] |= 1 << servers[server, STATION]


@compiled
def _cut(at: Ints, servers: Ints, loads: Ints) -> None:
    """What links carry ends with the chunk that is on its way.

    Where that chunk ends in this very instant, `starts` sees to it: no load is ready by it.
    """
    now = at[NOW]
    for server in range(len(servers)):
        carries = servers[server, STATION] == LINK and servers[server, MODE] == BUSY
        if carries and servers[server, RUN] > 1:
            began, load = servers[server, BEGAN], servers[server, JOB]
            part = loads[load, STAGE + LINK] // loads[load, CHUNKS]
            passed = (now - began + part - 1) // part  # with the one on its way, if there is one
            if 0 < passed < servers[server, RUN]:
                servers[server, RUN] = passed
                servers[server, ENDS] = began + passed * part
                at[ENDING] |= servers[server, ENDS] == now


@compiled
def starts(m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints) -> None:
    """Everything of the stations that can start now."""
    if at[ENDING]:
        at[ENDING] = 0
        ends(m, at, servers, loads, live)
    poked = at[POKED]
    if not poked:
        return
    at[POKED] = 0
    first = 0
    for stage in range(COUNT):
        end = first + m[SERVERS + stage]
        if poked >> stage & 1:
            _station_starts(m, at, servers, loads, live, stage, first, end)
        first = end


@compiled
def _station_starts(
    m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints, stage: int, first: int, end: int
) -> None:
    waking = 0
    for server in range(first, end):
        if servers[server, FRESH]:
            servers[server, FRESH] = 0
            _serve_next(m, at, servers, loads, live, stage, server)
        waking += servers[server, MODE] == WAKING
    waiting = -waking
    for place in range(at[LIVE]):
        waiting += _waits_at(m, loads, live[place], stage)
    for server in range(first, end):
        if waiting <= 0:
            return
        if servers[server, MODE] == IDLE:
            waiting -= 1
            if m[HANDOVER + stage]:
                servers[server, MODE] = WAKING
                servers[server, ENDS] = at[NOW] + m[HANDOVER + stage]
                at[ACTIVE] += 1
            else:
                _serve_next(m, at, servers, loads, live, stage, server)


@compiled
def _serve_next(
    m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints, stage: int, server: int
) -> None:
    """The oldest urgent load that waits here, or the oldest that does."""
    chosen = NONE
    for place in range(at[LIVE]):
        load = live[place]
        if _waits_at(m, loads, load, stage):
            if loads[load, URGENT]:
                chosen = load
                break
            if chosen == NONE:
                chosen = load
    if chosen == NONE:
        return
    now = at[NOW]
    loads[chosen, SERVED + stage] = 1
    if not loads[chosen, DONE + stage]:
        loads[chosen, START + stage] = now
    at[ACTIVE] += 1
    run = loads[chosen, CHUNKS] - loads[chosen, DONE + stage]
    if m[PIPELINED]:
        run = min(run, 1)
    duration = _run_ps(loads, chosen, stage, run)
    rate = UNDISTURBED
    if stage == m[DECODER]:
        if not at[SERVING]:
            _compute_goes_on(at, UNDISTURBED, m[COMPUTE_RATE])
        at[SERVING] += 1
        if at[WORKING]:
            rate = m[DECODE_RATE]
    servers[server, MODE], servers[server, JOB] = BUSY, chosen
    servers[server, RUN] = run
    servers[server, WORK], servers[server, BEGAN] = duration, now
    servers[server, ENDS] = now + stretch(duration, rate)


@compiled
def _served(m: Ints, at: Ints, servers: Ints, loads: Ints, live: Ints, server: int) -> None:
    stage, load, now = servers[server, STATION], servers[server, JOB], at[NOW]
    if stage == m[DECODER]:
        at[SERVING] -= 1
        if not at[SERVING]:
            _compute_goes_on(at, m[COMPUTE_RATE], UNDISTURBED)
    loads[load, SERVED + stage] = 0
    loads[load, DONE + stage] += servers[server, RUN]
    loads[load, END + stage] = now
    _skip(loads, load, stage + 1)
    _poke_next(at, servers, loads, load, stage + 1)
    if loads[load, DONE + COUNT - 1] == loads[load, CHUNKS]:
        loads[load, READY] = now
        _off(at, live, load)
    elif loads[load, GONE] and not _in_service(loads, load):
        _off(at, live, load)


@compiled
def _waits_at(m: Ints, loads: Ints, load: int, stage: int) -> bool:
    """Whether a chunk of a load could be served there now."""
    chunks, done = loads[load, CHUNKS], loads[load, DONE + stage]
    if done == chunks or loads[load, SERVED + stage] or loads[load, GONE]:
        return False
    before = loads[load, DONE + stage - 1] if stage else chunks
    return before > done and (m[PIPELINED] != 0 or before == chunks)


@compiled
def _in_service(loads: Ints, load: int) -> bool:
    for stage in range(COUNT):
        if loads[load, SERVED + stage]:
            return True
    return False


@compiled
def _run_ps(loads: Ints, load: int, stage: int, run: int) -> int:
    """How long the next so many chunks take; they are equal, the last one has the rest."""
    chunks, whole = loads[load, CHUNKS], loads[load, STAGE + stage]
    if run == chunks:
        return whole
    part = whole // chunks
    last = loads[load, DONE + stage] + run == chunks
    return whole - part * (chunks - run) if last else part * run


@compiled
def _skip(loads: Ints, load: int, stage: int) -> None:
    """Nothing waits at a stage that is not on the path."""
    while stage < COUNT and loads[load, STAGE + stage] == 0:
        loads[load, DONE + stage] = loads[load, DONE + stage - 1] if stage else loads[load, CHUNKS]
        stage += 1


@compiled
def _poke_next(at: Ints, servers: Ints, loads: Ints, load: int, stage: int) -> None:
    """The next station on a load's path, from `stage` on, may have something to start."""
    while stage < COUNT:
        if loads[load, STAGE + stage]:
            at[POKED] |= 1 << stage
            if stage == LINK:
                _cut(at, servers, loads)
            return
        stage += 1


@compiled
def _off(at: Ints, live: Ints, load: int) -> None:
    """A load is no longer on its path."""
    place = 0
    while place < at[LIVE] and live[place] != load:
        place += 1
    if place == at[LIVE]:
        return
    at[LIVE] -= 1
    for later in range(place, at[LIVE]):
        live[later] = live[later + 1]
