"""Stations of the fast engine: what `offsim.simulate.station` says, compiled.

An instant goes in two parts: `ends` settles everything that ends at it, `starts` begins what can
begin. Between the two compute does what it does at that instant.

The link does not stop at each chunk, only at those after which its choice may be another, or that
the next station waits for: `_cut` ends what it carries at the next chunk when a load comes to it,
is raised or given up.

Arguments, in all functions: `st`, `rows`, `live` as in `offsim.simulate.fast.state`; a server is
named by its place in `st`, a load by its row.
"""

from offsim.simulate.clock import UNDISTURBED, Ints, served, stretched
from offsim.simulate.fast.compiled import SURE, compiled
from offsim.simulate.fast.state import (
    ACTIVE,
    ARRIVAL,
    ASKED,
    BEGAN,
    BUSY,
    CHUNKS,
    COMPUTE_RATE,
    COUNTED,
    DECODE_RATE,
    DECODER,
    DONE,
    END,
    ENDS,
    EVENTS,
    FIRST_SERVER,
    FREE,
    FRESH,
    GONE,
    HANDOVER,
    HANDOVER_KEPT,
    IDLE,
    JOB,
    LEFT,
    LINK,
    LIVE,
    MODE,
    NEVER,
    NEXT,
    NOW,
    NUMBER,
    PATH,
    PIPELINED,
    POKED,
    READY,
    RUN,
    SERVED,
    SERVER,
    SERVERS,
    SERVICES,
    SERVING,
    SINCE,
    STAGE,
    START,
    STATION,
    TIME,
    UNTIL,
    URGENT,
    WAITING,
    WAITS,
    WAKING,
    WORK,
    WORKING,
)
from offsim.simulate.plan import NONE

stretch = compiled(stretched)
serve = compiled(served)


@compiled
def ask(st: Ints, rows: Ints, live: Ints, load: int, urgent: bool) -> None:
    """Start a load on its path; its number, its chunks and its times are filled in."""
    rows[load + URGENT], rows[load + GONE], rows[load + SERVICES] = urgent, False, 0
    rows[load + READY], rows[load + ASKED], rows[load + WAITS] = NONE, st[NOW], 0
    for stage in range(st[COUNTED]):
        at = load + PATH + stage * STAGE & SURE
        rows[at + DONE] = rows[at + SERVED] = 0
        rows[at + START] = rows[at + END] = NONE
    live[st[LIVE]] = load
    st[LIVE] += 1
    _go_on(st, rows, load, 0)


@compiled
def raise_to_demand(st: Ints, rows: Ints, load: int) -> None:
    """A load that was fetched ahead is asked for."""
    rows[load + URGENT] = 1
    if st[LINK] != NONE and rows[load + WAITS] >> st[LINK] & 1:
        _cut(st, rows, load)


@compiled
def drop(st: Ints, rows: Ints, live: Ints, load: int) -> None:
    """Give up a load: what is being served goes on to its end, on the link of its chunk."""
    _cut(st, rows, load)
    rows[load + GONE] = True
    for stage in range(st[COUNTED]):
        st[WAITING + stage] -= rows[load + WAITS] >> stage & 1
    rows[load + WAITS] = 0
    if rows[load + READY] == NONE and not rows[load + SERVICES]:
        _off(st, live, load)
        release(st, rows, live, load)


@compiled
def release(st: Ints, rows: Ints, live: Ints, load: int) -> None:
    """Nobody asks again when a load happened: its row is free, unless events are kept."""
    if not st[EVENTS]:
        rows[load + NUMBER] = NONE
        st[FREE] += 1
        live[len(live) - st[FREE]] = load


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
    st[NEXT] = NEVER
    for place in range(FIRST_SERVER, len(st), SERVER):
        server = place & SURE
        if st[server + STATION] == st[DECODER] and st[server + MODE] == BUSY:
            done = serve(now - st[server + BEGAN], before)
            st[server + WORK] = max(0, st[server + WORK] - done)
            st[server + BEGAN] = now
            st[server + ENDS] = now + stretch(st[server + WORK], after)
        st[NEXT] = min(st[NEXT], st[server + ENDS])


@compiled
def _compute_goes_on(st: Ints, before: int, after: int) -> None:
    """Compute, if it works, goes on at another rate."""
    if st[WORKING]:
        st[LEFT] = max(0, st[LEFT] - serve(st[NOW] - st[SINCE], before))
        st[SINCE] = st[NOW]
        st[UNTIL] = st[NOW] + stretch(st[LEFT], after)


@compiled
def _compute_is_held(st: Ints, duration: int) -> None:
    """Compute, if it works, takes `duration` ps longer."""
    if st[WORKING] and duration:
        rate = st[COMPUTE_RATE] if st[SERVING] else UNDISTURBED
        _compute_goes_on(st, rate, rate)
        st[LEFT] += duration
        st[UNTIL] = st[NOW] + stretch(st[LEFT], rate)


@compiled
def ends(st: Ints, rows: Ints, live: Ints) -> None:
    """Everything of the stations that ends now."""
    now = st[NOW]
    if st[NEXT] != now:
        return
    st[NEXT] = NEVER
    for place in range(FIRST_SERVER, len(st), SERVER):
        server = place & SURE
        if st[server + ENDS] == now:
            if st[server + MODE] == BUSY:
                _served(st, rows, live, server)
            st[server + MODE], st[server + ENDS] = IDLE, NEVER
            st[server + FRESH] = 1
            st[ACTIVE] -= 1
            st[POKED] |= 1 << st[server + STATION]
        else:
            st[NEXT] = min(st[NEXT], st[server + ENDS])


@compiled
def _cut(st: Ints, rows: Ints, load: int) -> None:
    """A link ends what it carries with the chunk that is on its way, if it has another choice then.

    So it is where `load` came to it, or was raised, and goes first, and where it is given up. Where
    that chunk ends in this very instant, `starts` sees to it: no load is ready by it.
    """
    now = st[NOW]
    for place in range(FIRST_SERVER, len(st), SERVER):
        server = place & SURE
        if st[server + RUN] > 1 and st[server + STATION] == st[LINK] and st[server + MODE] == BUSY:
            began, job = st[server + BEGAN], st[server + JOB] & SURE
            if job != load and not _goes_before(rows, load, job):
                continue
            part = rows[job + PATH + st[LINK] * STAGE + TIME] // rows[job + CHUNKS]
            passed = (now - began + part - 1) // part  # with the one on its way, if there is one
            if 0 < passed < st[server + RUN]:
                st[server + RUN] = passed
                st[server + ENDS] = began + passed * part
                st[NEXT] = min(st[NEXT], st[server + ENDS])


@compiled
def _goes_before(rows: Ints, load: int, other: int) -> bool:
    """Whether a station prefers one load to another: the urgent first, of these the oldest."""
    if rows[load + URGENT] != rows[other + URGENT]:
        return rows[load + URGENT] != 0
    return rows[load + NUMBER] < rows[other + NUMBER]


@compiled
def starts(st: Ints, rows: Ints, live: Ints) -> None:
    """Everything of the stations that can start now."""
    ends(st, rows, live)  # what was cut to end now
    poked = st[POKED]
    if not poked:
        return
    st[POKED] = 0
    first = FIRST_SERVER
    for nth in range(st[COUNTED]):
        stage = nth & SURE
        end = first + SERVER * st[SERVERS + stage]
        if poked >> stage & 1:
            _station_starts(st, rows, live, stage, first, end)
        first = end


@compiled
def _station_starts(st: Ints, rows: Ints, live: Ints, stage: int, first: int, end: int) -> None:
    waking = 0
    for place in range(first, end, SERVER):
        server = place & SURE
        if st[server + FRESH]:
            st[server + FRESH] = 0
            _serve_next(st, rows, live, stage, server)
        waking += st[server + MODE] == WAKING
    waiting = st[WAITING + stage] - waking
    last = st[COUNTED] - 1 if st[HANDOVER_KEPT] != st[HANDOVER + stage] else NONE
    for place in range(first, end, SERVER):
        server = place & SURE
        if waiting <= 0:
            return
        if st[server + MODE] == IDLE:
            waiting -= 1
            handover = st[HANDOVER + stage]
            if stage == last and _nth_is_kept(st, rows, live, stage, waking):
                handover = st[HANDOVER_KEPT]
            if handover:
                waking += 1
                st[server + MODE] = WAKING
                st[server + ENDS] = st[NOW] + handover
                st[NEXT] = min(st[NEXT], st[server + ENDS])
                st[ACTIVE] += 1
            else:
                _serve_next(st, rows, live, stage, server)


@compiled
def _nth_is_kept(st: Ints, rows: Ints, live: Ints, stage: int, nth: int) -> bool:
    """Whether the nth load that waits here, from 0, is a blob that the device keeps."""
    if st[LINK] == NONE:
        return True
    for place in range(st[LIVE]):
        load = live[place] & SURE
        if rows[load + WAITS] >> stage & 1:
            if not nth:
                return bool(rows[load + PATH + st[LINK] * STAGE + TIME] == 0)
            nth -= 1
    return False


@compiled
def _serve_next(st: Ints, rows: Ints, live: Ints, stage: int, server: int) -> None:
    """The oldest urgent load that waits here, or the oldest that does."""
    waiting = st[WAITING + stage]
    if not waiting:
        return
    chosen = NONE
    for place in range(st[LIVE]):
        load = live[place] & SURE
        if rows[load + WAITS] >> stage & 1:
            waiting -= 1
            if rows[load + URGENT]:
                chosen = load
                break
            if chosen == NONE:
                chosen = load
            if not waiting:
                break
    chosen &= SURE
    st[WAITING + stage] -= 1
    rows[chosen + WAITS] ^= 1 << stage
    now, at = st[NOW], chosen + PATH + stage * STAGE & SURE
    rows[at + SERVED] = 1
    rows[chosen + SERVICES] += 1
    done, chunks = rows[at + DONE], rows[chosen + CHUNKS]
    if not done:
        rows[at + START] = now
    st[ACTIVE] += 1
    run = (rows[at - STAGE + DONE] if stage else chunks) - done
    if st[PIPELINED] and not (stage == st[LINK] and _is_last(st, rows, chosen, stage)):
        run = min(run, 1)
    duration = _run_ps(rows[at + TIME], chunks, done, run)
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
    st[NEXT] = min(st[NEXT], st[server + ENDS])


@compiled
def _served(st: Ints, rows: Ints, live: Ints, server: int) -> None:
    stage, load, now = st[server + STATION] & SURE, st[server + JOB] & SURE, st[NOW]
    if stage == st[DECODER]:
        st[SERVING] -= 1
        if not st[SERVING]:
            _compute_goes_on(st, st[COMPUTE_RATE], UNDISTURBED)
    at = load + PATH + stage * STAGE & SURE
    rows[at + SERVED] = 0
    rows[load + SERVICES] -= 1
    rows[at + DONE] += st[server + RUN]
    rows[at + END] = now
    if stage == st[LINK] and rows[at + DONE] == rows[load + CHUNKS] and st[UNTIL] != now:
        _compute_is_held(st, rows[load + CHUNKS] * st[ARRIVAL])
    last = _go_on(st, rows, load, stage + 1)
    if last and rows[at + DONE] == rows[load + CHUNKS]:
        rows[load + READY] = now
        _off(st, live, load)
        if rows[load + GONE] or not rows[load + URGENT]:
            release(st, rows, live, load)
    elif not rows[load + GONE]:
        _wait(st, rows, load, stage)  # for its other chunks
    elif not rows[load + SERVICES]:
        _off(st, live, load)
        release(st, rows, live, load)


@compiled
def _wait(st: Ints, rows: Ints, load: int, stage: int) -> None:
    """Note a load that could be served at a stage now, if it could."""
    at, chunks = load + PATH + stage * STAGE & SURE, rows[load + CHUNKS]
    done = rows[at + DONE]
    if done == chunks or rows[at + SERVED] or rows[load + WAITS] >> stage & 1:
        return
    before = rows[at - STAGE + DONE] if stage else chunks
    if before > done and (st[PIPELINED] or before == chunks):
        rows[load + WAITS] |= 1 << stage
        st[WAITING + stage] += 1


@compiled
def _is_last(st: Ints, rows: Ints, load: int, stage: int) -> bool:
    """Whether no later stage is on a load's path."""
    for later in range(stage + 1, st[COUNTED]):
        if rows[load + PATH + later * STAGE + TIME]:
            return False
    return True


@compiled
def _run_ps(whole: int, chunks: int, done: int, run: int) -> int:
    """How long the next so many chunks take; they are equal, the last one has the rest."""
    if run == chunks:
        return whole
    part = whole // chunks
    return whole - part * (chunks - run) if done + run == chunks else part * run


@compiled
def _go_on(st: Ints, rows: Ints, load: int, stage: int) -> bool:
    """What has come to `stage` of a load's path goes on to the next station on it.

    Nothing waits at a stage that is not on the path. Returns whether there is no further station.
    """
    while stage < st[COUNTED]:
        at = load + PATH + stage * STAGE & SURE
        if rows[at + TIME]:
            st[POKED] |= 1 << stage
            if not rows[load + GONE]:
                _wait(st, rows, load, stage)
                if stage == st[LINK]:
                    _cut(st, rows, load)
            return False
        rows[at + DONE] = rows[at - STAGE + DONE] if stage else rows[load + CHUNKS]
        stage += 1
    return True


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
