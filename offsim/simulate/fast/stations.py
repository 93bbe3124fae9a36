"""Stations of the fast engine: what `offsim.simulate.station` says, compiled.

An instant goes in two parts: `ends` settles everything that ends at it, `starts` begins what can
begin. Between the two compute does what it does at that instant.

The link does not stop at each chunk, only at those after which its choice may be another: `_cut`
ends what it carries at the next chunk when a load comes to it, is raised or given up.

Arguments, in all functions: `st`, `loads`, `live` as in `offsim.simulate.fast.state`; a server is
named by its place in `st`, a load by its id.
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
    FIRST_SERVER,
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
    SERVER,
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
def next_end(st: Ints) -> int:
    """When the next server is through with what it does, ps; NEVER where all are idle."""
    first = NEVER
    for server in range(FIRST_SERVER, len(st), SERVER):
        first = min(first, st[server + ENDS])
    return first


@compiled
def ask(st: Ints, loads: Ints, live: Ints, load: int, urgent: bool) -> None:
    """Start a load on its path; its stages and chunks are filled in."""
    loads[load, URGENT], loads[load, GONE] = urgent, False
    loads[load, READY], loads[load, ASKED] = NONE, st[NOW]
    for stage in range(COUNT):
        loads[load, DONE + stage] = loads[load, SERVED + stage] = 0
        loads[load, START + stage] = loads[load, END + stage] = NONE
    live[st[LIVE]] = load
    st[LIVE] += 1
    _skip(loads, load, 0)
    _poke_next(st, loads, load, 0)


@compiled
def raise_to_demand(st: Ints, loads: Ints, load: int) -> None:
    """A load that was fetched ahead is asked for."""
    loads[load, URGENT] = 1
    _cut(st, loads)


@compiled
def drop(st: Ints, loads: Ints, live: Ints, load: int) -> None:
    """Give up a load: what is being served goes on to its end, on the link of its chunk."""
    _cut(st, loads)
    loads[load, GONE] = True
    if loads[load, READY] == NONE and not _in_service(loads, load):
        _off(st, live, load)


@compiled
def compute_begins(st: Ints, duration: int) -> None:
    """Compute works from now on."""
    st[WORKING], st[LEFT], st[SINCE] = 1, duration, st[NOW]
    st[UNTIL] = st[NOW] + stretch(duration, st[COMPUTE_RATE] if st[SERVING] else UNDISTURBED)
    if st[SERVING]:
        _decoders_go_on(st, UNDISTURBED, st[DECODE_RATE])


@compiled
def compute_ends(st: Ints) -> None:
    """Compute has done its work."""
    st[WORKING], st[UNTIL] = 0, NEVER
    if st[SERVING]:
        _decoders_go_on(st, st[DECODE_RATE], UNDISTURBED)


@compiled
def _decoders_go_on(st: Ints, before: int, after: int) -> None:
    """Decoders that are at work go on at another rate."""
    now = st[NOW]
    for server in range(FIRST_SERVER, len(st), SERVER):
        if st[server + STATION] == st[DECODER] and st[server + MODE] == BUSY:
            done = serve(now - st[server + BEGAN], before)
            st[server + WORK] = max(0, st[server + WORK] - done)
            st[server + BEGAN] = now
            st[server + ENDS] = now + stretch(st[server + WORK], after)


@compiled
def _compute_goes_on(st: Ints, before: int, after: int) -> None:
    """Compute, if it works, goes on at another rate."""
    if st[WORKING]:
        st[LEFT] = max(0, st[LEFT] - serve(st[NOW] - st[SINCE], before))
        st[SINCE] = st[NOW]
        st[UNTIL] = st[NOW] + stretch(st[LEFT], after)


@compiled
def ends(st: Ints, loads: Ints, live: Ints) -> None:
    """Everything of the stations that ends now."""
    for server in range(FIRST_SERVER, len(st), SERVER):
        if st[server + ENDS] == st[NOW]:
            if st[server + MODE] == BUSY:
                _served(st, loads, live, server)
            st[server + MODE], st[server + ENDS] = IDLE, NEVER
            st[server + FRESH] = 1
            st[ACTIVE] -= 1
            st[POKED] |= 1 << st[server + STATION]


@compiled
def _cut(st: Ints, loads: Ints) -> None:
    """What links carry ends with the chunk that is on its way.

    Where that chunk ends in this very instant, `starts` sees to it: no load is ready by it.
    """
    now = st[NOW]
    for server in range(FIRST_SERVER, len(st), SERVER):
        carries = st[server + STATION] == LINK and st[server + MODE] == BUSY
        if carries and st[server + RUN] > 1:
            began, load = st[server + BEGAN], st[server + JOB]
            part = loads[load, STAGE + LINK] // loads[load, CHUNKS]
            passed = (now - began + part - 1) // part  # with the one on its way, if there is one
            if 0 < passed < st[server + RUN]:
                st[server + RUN] = passed
                st[server + ENDS] = began + passed * part
                st[ENDING] |= st[server + ENDS] == now


@compiled
def starts(st: Ints, loads: Ints, live: Ints) -> None:
    """Everything of the stations that can start now."""
    if st[ENDING]:
        st[ENDING] = 0
        ends(st, loads, live)
    poked = st[POKED]
    if not poked:
        return
    st[POKED] = 0
    first = FIRST_SERVER
    for stage in range(COUNT):
        end = first + SERVER * st[SERVERS + stage]
        if poked >> stage & 1:
            _station_starts(st, loads, live, stage, first, end)
        first = end


@compiled
def _station_starts(st: Ints, loads: Ints, live: Ints, stage: int, first: int, end: int) -> None:
    waking = 0
    for server in range(first, end, SERVER):
        if st[server + FRESH]:
            st[server + FRESH] = 0
            _serve_next(st, loads, live, stage, server)
        waking += st[server + MODE] == WAKING
    waiting = -waking
    for place in range(st[LIVE]):
        waiting += _waits_at(st, loads, live[place], stage)
    for server in range(first, end, SERVER):
        if waiting <= 0:
            return
        if st[server + MODE] == IDLE:
            waiting -= 1
            if st[HANDOVER + stage]:
                st[server + MODE] = WAKING
                st[server + ENDS] = st[NOW] + st[HANDOVER + stage]
                st[ACTIVE] += 1
            else:
                _serve_next(st, loads, live, stage, server)


@compiled
def _serve_next(st: Ints, loads: Ints, live: Ints, stage: int, server: int) -> None:
    """The oldest urgent load that waits here, or the oldest that does."""
    chosen = NONE
    for place in range(st[LIVE]):
        load = live[place]
        if _waits_at(st, loads, load, stage):
            if loads[load, URGENT]:
                chosen = load
                break
            if chosen == NONE:
                chosen = load
    if chosen == NONE:
        return
    now = st[NOW]
    loads[chosen, SERVED + stage] = 1
    if not loads[chosen, DONE + stage]:
        loads[chosen, START + stage] = now
    st[ACTIVE] += 1
    run = loads[chosen, CHUNKS] - loads[chosen, DONE + stage]
    if st[PIPELINED]:
        run = min(run, 1)
    duration = _run_ps(loads, chosen, stage, run)
    rate = UNDISTURBED
    if stage == st[DECODER]:
        if not st[SERVING]:
            _compute_goes_on(st, UNDISTURBED, st[COMPUTE_RATE])
        st[SERVING] += 1
        if st[WORKING]:
            rate = st[DECODE_RATE]
    st[server + MODE], st[server + JOB] = BUSY, chosen
    st[server + RUN] = run
    st[server + WORK], st[server + BEGAN] = duration, now
    st[server + ENDS] = now + stretch(duration, rate)


@compiled
def _served(st: Ints, loads: Ints, live: Ints, server: int) -> None:
    stage, load, now = st[server + STATION], st[server + JOB], st[NOW]
    if stage == st[DECODER]:
        st[SERVING] -= 1
        if not st[SERVING]:
            _compute_goes_on(st, st[COMPUTE_RATE], UNDISTURBED)
    loads[load, SERVED + stage] = 0
    loads[load, DONE + stage] += st[server + RUN]
    loads[load, END + stage] = now
    _skip(loads, load, stage + 1)
    _poke_next(st, loads, load, stage + 1)
    if loads[load, DONE + COUNT - 1] == loads[load, CHUNKS]:
        loads[load, READY] = now
        _off(st, live, load)
    elif loads[load, GONE] and not _in_service(loads, load):
        _off(st, live, load)


@compiled
def _waits_at(st: Ints, loads: Ints, load: int, stage: int) -> bool:
    """Whether a chunk of a load could be served there now."""
    chunks, done = loads[load, CHUNKS], loads[load, DONE + stage]
    if done == chunks or loads[load, SERVED + stage] or loads[load, GONE]:
        return False
    before = loads[load, DONE + stage - 1] if stage else chunks
    return before > done and (st[PIPELINED] != 0 or before == chunks)


@compiled
def _in_service(loads: Ints, load: int) -> bool:
    serving = 0
    for stage in range(COUNT):
        serving += loads[load, SERVED + stage]
    return serving > 0


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
def _poke_next(st: Ints, loads: Ints, load: int, stage: int) -> None:
    """The next station on a load's path, from `stage` on, may have something to start."""
    while stage < COUNT:
        if loads[load, STAGE + stage]:
            st[POKED] |= 1 << stage
            if stage == LINK:
                _cut(st, loads)
            return
        stage += 1


@compiled
def _off(st: Ints, live: Ints, load: int) -> None:
    """A load is no longer on its path."""
    place = 0
    while place < st[LIVE] and live[place] != load:
        place += 1
    if place == st[LIVE]:
        return
    st[LIVE] -= 1
    for later in range(place, st[LIVE]):
        live[later] = live[later + 1]
