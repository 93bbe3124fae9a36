"""Stations of the fast engine: what `offsim.simulate.station` says, compiled.

An instant goes in two parts: `ends` settles everything that ends at it, `starts` begins what can
begin. Between the two compute does what it does at that instant.

The link does not stop at each chunk, only at those after which its choice may be another: `_cut`
ends what it carries at the next chunk when a load comes to it, is raised or given up.

Arguments, in all functions: `m` [MACHINE] and `st` as in `offsim.simulate.fast.state`.
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
    State,
)
from offsim.simulate.plan import NONE

stretch = compiled(stretched)
serve = compiled(served)


@compiled
def next_end(st: State) -> int:
    """When the next server is through with what it does, ps; NEVER where all are idle."""
    first = NEVER
    for server in range(len(st.servers)):
        first = min(first, st.servers[server, ENDS])
    return first


@compiled
def ask(st: State, load: int, urgent: bool) -> None:
    """Start a load on its path; its stages and chunks are filled in."""
    st.loads[load, URGENT], st.loads[load, GONE] = urgent, False
    st.loads[load, READY], st.loads[load, ASKED] = NONE, st.at[NOW]
    for stage in range(COUNT):
        st.loads[load, DONE + stage] = st.loads[load, SERVED + stage] = 0
        st.loads[load, START + stage] = st.loads[load, END + stage] = NONE
    st.live[st.at[LIVE]] = load
    st.at[LIVE] += 1
    _skip(st, load, 0)
    _poke_next(st, load, 0)


@compiled
def raise_to_demand(st: State, load: int) -> None:
    """A load that was fetched ahead is asked for."""
    st.loads[load, URGENT] = 1
    _cut(st)


@compiled
def drop(st: State, load: int) -> None:
    """Give up a load: what is being served goes on to its end, on the link of its chunk."""
    _cut(st)
    st.loads[load, GONE] = True
    if st.loads[load, READY] == NONE and not _in_service(st, load):
        _off(st, load)


@compiled
def compute_begins(m: Ints, st: State, duration: int) -> None:
    """Compute works from now on."""
    st.at[WORKING], st.at[LEFT], st.at[SINCE] = 1, duration, st.at[NOW]
    st.at[UNTIL] = st.at[NOW] + stretch(
        duration, m[COMPUTE_RATE] if st.at[SERVING] else UNDISTURBED
    )
    if st.at[SERVING]:
        _decoders_go_on(m, st, UNDISTURBED, m[DECODE_RATE])


@compiled
def compute_ends(m: Ints, st: State) -> None:
    """Compute has done its work."""
    st.at[WORKING], st.at[UNTIL] = 0, NEVER
    if st.at[SERVING]:
        _decoders_go_on(m, st, m[DECODE_RATE], UNDISTURBED)


@compiled
def _decoders_go_on(m: Ints, st: State, before: int, after: int) -> None:
    """Decoders that are at work go on at another rate."""
    now = st.at[NOW]
    for server in range(len(st.servers)):
        if st.servers[server, STATION] == m[DECODER] and st.servers[server, MODE] == BUSY:
            done = serve(now - st.servers[server, BEGAN], before)
            st.servers[server, WORK] = max(0, st.servers[server, WORK] - done)
            st.servers[server, BEGAN] = now
            st.servers[server, ENDS] = now + stretch(st.servers[server, WORK], after)


@compiled
def _compute_goes_on(st: State, before: int, after: int) -> None:
    """Compute, if it works, goes on at another rate."""
    if st.at[WORKING]:
        st.at[LEFT] = max(0, st.at[LEFT] - serve(st.at[NOW] - st.at[SINCE], before))
        st.at[SINCE] = st.at[NOW]
        st.at[UNTIL] = st.at[NOW] + stretch(st.at[LEFT], after)


@compiled
def ends(m: Ints, st: State) -> None:
    """Everything of the stations that ends now."""
    for server in range(len(st.servers)):
        if st.servers[server, ENDS] == st.at[NOW]:
            if st.servers[server, MODE] == BUSY:
                _served(m, st, server)
            st.servers[server, MODE], st.servers[server, ENDS] = IDLE, NEVER
            st.servers[server, FRESH] = 1
            st.at[ACTIVE] -= 1
            st.at[POKED] |= 1 << st.servers[server, STATION]


@compiled
def _cut(st: State) -> None:
    """What links carry ends with the chunk that is on its way.

    Where that chunk ends in this very instant, `starts` sees to it: no load is ready by it.
    """
    now = st.at[NOW]
    for server in range(len(st.servers)):
        carries = st.servers[server, STATION] == LINK and st.servers[server, MODE] == BUSY
        if carries and st.servers[server, RUN] > 1:
            began, load = st.servers[server, BEGAN], st.servers[server, JOB]
            part = st.loads[load, STAGE + LINK] // st.loads[load, CHUNKS]
            passed = (now - began + part - 1) // part  # with the one on its way, if there is one
            if 0 < passed < st.servers[server, RUN]:
                st.servers[server, RUN] = passed
                st.servers[server, ENDS] = began + passed * part
                st.at[ENDING] |= st.servers[server, ENDS] == now


@compiled
def starts(m: Ints, st: State) -> None:
    """Everything of the stations that can start now."""
    if st.at[ENDING]:
        st.at[ENDING] = 0
        ends(m, st)
    poked = st.at[POKED]
    if not poked:
        return
    st.at[POKED] = 0
    first = 0
    for stage in range(COUNT):
        end = first + m[SERVERS + stage]
        if poked >> stage & 1:
            _station_starts(m, st, stage, first, end)
        first = end


@compiled
def _station_starts(m: Ints, st: State, stage: int, first: int, end: int) -> None:
    waking = 0
    for server in range(first, end):
        if st.servers[server, FRESH]:
            st.servers[server, FRESH] = 0
            _serve_next(m, st, stage, server)
        waking += st.servers[server, MODE] == WAKING
    waiting = -waking
    for place in range(st.at[LIVE]):
        waiting += _waits_at(m, st, st.live[place], stage)
    for server in range(first, end):
        if waiting <= 0:
            return
        if st.servers[server, MODE] == IDLE:
            waiting -= 1
            if m[HANDOVER + stage]:
                st.servers[server, MODE] = WAKING
                st.servers[server, ENDS] = st.at[NOW] + m[HANDOVER + stage]
                st.at[ACTIVE] += 1
            else:
                _serve_next(m, st, stage, server)


@compiled
def _serve_next(m: Ints, st: State, stage: int, server: int) -> None:
    """The oldest urgent load that waits here, or the oldest that does."""
    chosen = NONE
    for place in range(st.at[LIVE]):
        load = st.live[place]
        if _waits_at(m, st, load, stage):
            if st.loads[load, URGENT]:
                chosen = load
                break
            if chosen == NONE:
                chosen = load
    if chosen == NONE:
        return
    now = st.at[NOW]
    st.loads[chosen, SERVED + stage] = 1
    if not st.loads[chosen, DONE + stage]:
        st.loads[chosen, START + stage] = now
    st.at[ACTIVE] += 1
    run = st.loads[chosen, CHUNKS] - st.loads[chosen, DONE + stage]
    if m[PIPELINED]:
        run = min(run, 1)
    duration = _run_ps(st, chosen, stage, run)
    rate = UNDISTURBED
    if stage == m[DECODER]:
        if not st.at[SERVING]:
            _compute_goes_on(st, UNDISTURBED, m[COMPUTE_RATE])
        st.at[SERVING] += 1
        if st.at[WORKING]:
            rate = m[DECODE_RATE]
    st.servers[server, MODE], st.servers[server, JOB] = BUSY, chosen
    st.servers[server, RUN] = run
    st.servers[server, WORK], st.servers[server, BEGAN] = duration, now
    st.servers[server, ENDS] = now + stretch(duration, rate)


@compiled
def _served(m: Ints, st: State, server: int) -> None:
    stage, load, now = st.servers[server, STATION], st.servers[server, JOB], st.at[NOW]
    if stage == m[DECODER]:
        st.at[SERVING] -= 1
        if not st.at[SERVING]:
            _compute_goes_on(st, m[COMPUTE_RATE], UNDISTURBED)
    st.loads[load, SERVED + stage] = 0
    st.loads[load, DONE + stage] += st.servers[server, RUN]
    st.loads[load, END + stage] = now
    _skip(st, load, stage + 1)
    _poke_next(st, load, stage + 1)
    if st.loads[load, DONE + COUNT - 1] == st.loads[load, CHUNKS]:
        st.loads[load, READY] = now
        _off(st, load)
    elif st.loads[load, GONE] and not _in_service(st, load):
        _off(st, load)


@compiled
def _waits_at(m: Ints, st: State, load: int, stage: int) -> bool:
    """Whether a chunk of a load could be served there now."""
    chunks, done = st.loads[load, CHUNKS], st.loads[load, DONE + stage]
    if done == chunks or st.loads[load, SERVED + stage] or st.loads[load, GONE]:
        return False
    before = st.loads[load, DONE + stage - 1] if stage else chunks
    return before > done and (m[PIPELINED] != 0 or before == chunks)


@compiled
def _in_service(st: State, load: int) -> bool:
    serving = 0
    for stage in range(COUNT):
        serving += st.loads[load, SERVED + stage]
    return serving > 0


@compiled
def _run_ps(st: State, load: int, stage: int, run: int) -> int:
    """How long the next so many chunks take; they are equal, the last one has the rest."""
    chunks, whole = st.loads[load, CHUNKS], st.loads[load, STAGE + stage]
    if run == chunks:
        return whole
    part = whole // chunks
    last = st.loads[load, DONE + stage] + run == chunks
    return whole - part * (chunks - run) if last else part * run


@compiled
def _skip(st: State, load: int, stage: int) -> None:
    """Nothing waits at a stage that is not on the path."""
    while stage < COUNT and st.loads[load, STAGE + stage] == 0:
        st.loads[load, DONE + stage] = (
            st.loads[load, DONE + stage - 1] if stage else st.loads[load, CHUNKS]
        )
        stage += 1


@compiled
def _poke_next(st: State, load: int, stage: int) -> None:
    """The next station on a load's path, from `stage` on, may have something to start."""
    while stage < COUNT:
        if st.loads[load, STAGE + stage]:
            st.at[POKED] |= 1 << stage
            if stage == LINK:
                _cut(st)
            return
        stage += 1


@compiled
def _off(st: State, load: int) -> None:
    """A load is no longer on its path."""
    place = 0
    while place < st.at[LIVE] and st.live[place] != load:
        place += 1
    if place == st.at[LIVE]:
        return
    st.at[LIVE] -= 1
    for later in range(place, st.at[LIVE]):
        st.live[later] = st.live[later + 1]
