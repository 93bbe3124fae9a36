"""Stations of the fast engine: what `offsim.simulate.station` says, compiled.

An instant goes in two parts: `ends` settles everything that ends at it, `starts` begins what can
begin. Between the two compute does what it does at that instant.
"""

import numba

from offsim.simulate.clock import UNDISTURBED, served, stretched
from offsim.simulate.fast.state import (
    ACTIVE,
    BUSY,
    IDLE,
    LEFT,
    LIVE,
    NEVER,
    NOW,
    POKED,
    SERVING,
    SINCE,
    UNTIL,
    WAKING,
    WORKING,
    State,
)
from offsim.simulate.plan import NONE, Machine

compiled = numba.njit(cache=True, error_model="numpy")
inlined = numba.njit(cache=True, error_model="numpy", inline="always")
stretch = numba.njit(cache=True)(stretched)
serve = numba.njit(cache=True)(served)


@compiled
def next_end(st: State) -> int:
    """When the next server ends what it does, ps; NEVER where all are idle."""
    first = NEVER
    for server in range(len(st.until)):
        first = min(first, st.until[server])
    return first


@compiled
def ask(m: Machine, st: State, load: int, urgent: bool) -> None:
    """Start a load on its path; its stages and chunks are filled in."""
    stages = len(st.poked)
    st.urgent[load], st.gone[load] = urgent, False
    st.ready[load], st.asked[load] = NONE, st.at[NOW]
    for stage in range(stages):
        st.done[load, stage], st.serving[load, stage] = 0, False
        st.served[load, stage, 0] = st.served[load, stage, 1] = NONE
    st.live[st.at[LIVE]] = load
    st.at[LIVE] += 1
    _skip(st, load, 0)
    _poke_next(st, load, 0)


@compiled
def drop(st: State, load: int) -> None:
    """Give up a load: what is being served goes on to the end of its chunk."""
    st.gone[load] = True
    if st.ready[load] == NONE and not st.serving[load].any():
        _off(st, load)


@compiled
def compute_begins(m: Machine, st: State, duration: int) -> None:
    """Compute works from now on."""
    at = st.at
    at[WORKING], at[LEFT], at[SINCE] = 1, duration, at[NOW]
    at[UNTIL] = at[NOW] + stretch(duration, m.compute_rate if at[SERVING] else UNDISTURBED)
    for server in range(len(st.mode)):
        if st.station[server] == m.decoder and st.mode[server] == BUSY:
            _settle_server(st, server, UNDISTURBED, m.decode_rate)


@compiled
def compute_ends(m: Machine, st: State) -> None:
    """Compute has done its work."""
    st.at[WORKING], st.at[UNTIL] = 0, NEVER
    for server in range(len(st.mode)):
        if st.station[server] == m.decoder and st.mode[server] == BUSY:
            _settle_server(st, server, m.decode_rate, UNDISTURBED)


@compiled
def ends(m: Machine, st: State) -> None:
    """Everything of the stations that ends now."""
    now = st.at[NOW]
    for server in range(len(st.until)):
        if st.until[server] == now:
            stage = st.station[server]
            if st.mode[server] == BUSY:
                _chunk_served(m, st, server, stage)
            st.mode[server], st.until[server], st.fresh[server] = IDLE, NEVER, 1
            st.at[ACTIVE] -= 1
            _poke(st, stage)


@compiled
def starts(m: Machine, st: State) -> None:
    """Everything of the stations that can start now."""
    if not st.at[POKED]:
        return
    st.at[POKED] = 0
    first = 0
    for stage in range(len(st.poked)):
        end = first + m.servers[stage]
        if st.poked[stage]:
            st.poked[stage] = 0
            _station_starts(m, st, stage, first, end)
        first = end


@compiled
def _station_starts(m: Machine, st: State, stage: int, first: int, end: int) -> None:
    waking = 0
    for server in range(first, end):
        if st.fresh[server]:
            st.fresh[server] = 0
            _serve_next(m, st, stage, server)
        waking += st.mode[server] == WAKING
    waiting = -waking
    for at in range(st.at[LIVE]):
        waiting += _waits_at(m, st, st.live[at], stage)
    for server in range(first, end):
        if waiting <= 0:
            return
        if st.mode[server] == IDLE:
            waiting -= 1
            if m.handover[stage]:
                st.mode[server] = WAKING
                st.until[server] = st.at[NOW] + m.handover[stage]
                st.at[ACTIVE] += 1
            else:
                _serve_next(m, st, stage, server)


@compiled
def _serve_next(m: Machine, st: State, stage: int, server: int) -> None:
    """The oldest urgent load that waits here, or the oldest that does."""
    chosen = NONE
    for at in range(st.at[LIVE]):
        load = st.live[at]
        if _waits_at(m, st, load, stage):
            if st.urgent[load]:
                chosen = load
                break
            if chosen == NONE:
                chosen = load
    if chosen == NONE:
        return
    now = st.at[NOW]
    st.serving[chosen, stage] = True
    if not st.done[chosen, stage]:
        st.served[chosen, stage, 0] = now
    st.mode[server], st.job[server] = BUSY, chosen
    st.at[ACTIVE] += 1
    duration = max(1, _chunk_ps(st, chosen, stage))
    rate = UNDISTURBED
    if stage == m.decoder:
        if not st.at[SERVING]:
            _settle_compute(st, UNDISTURBED, m.compute_rate)
        st.at[SERVING] += 1
        if st.at[WORKING]:
            rate = m.decode_rate
    st.left[server], st.since[server] = duration, now
    st.until[server] = now + stretch(duration, rate)


@compiled
def _chunk_served(m: Machine, st: State, server: int, stage: int) -> None:
    load, now = st.job[server], st.at[NOW]
    if stage == m.decoder:
        st.at[SERVING] -= 1
        if not st.at[SERVING]:
            _settle_compute(st, m.compute_rate, UNDISTURBED)
    st.serving[load, stage] = False
    st.done[load, stage] += 1
    st.served[load, stage, 1] = now
    _skip(st, load, stage + 1)
    _poke_next(st, load, stage + 1)
    if st.done[load, -1] == st.chunks[load]:
        st.ready[load] = now
        _off(st, load)
    elif st.gone[load] and not st.serving[load].any():
        _off(st, load)


@compiled
def _settle_compute(st: State, before: int, after: int) -> None:
    """Compute goes on at another rate."""
    at = st.at
    if at[WORKING]:
        at[LEFT] = max(0, at[LEFT] - serve(at[NOW] - at[SINCE], before))
        at[SINCE] = at[NOW]
        at[UNTIL] = at[NOW] + stretch(at[LEFT], after)


@compiled
def _settle_server(st: State, server: int, before: int, after: int) -> None:
    now = st.at[NOW]
    st.left[server] = max(0, st.left[server] - serve(now - st.since[server], before))
    st.since[server] = now
    st.until[server] = now + stretch(st.left[server], after)


@compiled
def _waits_at(m: Machine, st: State, load: int, stage: int) -> bool:
    """Whether a chunk of a load could be served there now."""
    chunks, done = st.chunks[load], st.done[load, stage]
    if done == chunks or st.serving[load, stage] or st.gone[load]:
        return False
    before = st.done[load, stage - 1] if stage else chunks
    return before > done and (m.pipelined or before == chunks)


@compiled
def _chunk_ps(st: State, load: int, stage: int) -> int:
    chunks, whole = st.chunks[load], st.stages[load, stage]
    part = whole // chunks
    last = st.done[load, stage] == chunks - 1
    return whole - part * (chunks - 1) if last else part


@compiled
def _skip(st: State, load: int, stage: int) -> None:
    """Nothing waits at a stage that is not on the path."""
    while stage < len(st.poked) and st.stages[load, stage] == 0:
        st.done[load, stage] = st.done[load, stage - 1] if stage else st.chunks[load]
        stage += 1


@compiled
def _poke(st: State, stage: int) -> None:
    st.poked[stage] = st.at[POKED] = 1


@compiled
def _poke_next(st: State, load: int, stage: int) -> None:
    """The next station on a load's path, from `stage` on, may have something to start."""
    while stage < len(st.poked):
        if st.stages[load, stage]:
            _poke(st, stage)
            return
        stage += 1


@compiled
def _off(st: State, load: int) -> None:
    """A load is no longer on its path."""
    at = 0
    while at < st.at[LIVE] and st.live[at] != load:
        at += 1
    if at == st.at[LIVE]:
        return
    st.at[LIVE] -= 1
    for later in range(at, st.at[LIVE]):
        st.live[later] = st.live[later + 1]
