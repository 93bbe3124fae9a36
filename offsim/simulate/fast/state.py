"""Where the fast engine stands: a few whole-number arrays that compiled code reads and writes.

Few, because compiled code pays for every array that it hands on. What would be attributes of
objects are columns here. Of the stages it knows those that somebody serves, renumbered.
"""

from typing import NamedTuple

import numpy as np

from offsim.record.events import STAGES
from offsim.simulate.clock import UNDISTURBED, Ints
from offsim.simulate.plan import NONE, Ids, LoadClocks, Machine

NEVER = np.iinfo(np.int64).max
COUNT = len(STAGES)

# Places in State.st. NOW, ps: the servers are settled up to it; AHEAD, ps: compute is so much
# further; LIVE: loads on their path; FREE: rows without a load; ACTIVE: servers not idle; SERVING:
# decoders that contend with compute; WORKING: whether compute works, with LEFT ps of undisturbed
# work since SINCE, and its end UNTIL; COLD: of the last layer, ps; POKED: a bit for each stage
# where something may start in this instant; NEXT: when the next server is through.
NOW, AHEAD, LIVE, FREE, ACTIVE, SERVING, WORKING, LEFT = range(8)
SINCE, UNTIL, COLD, POKED, NEXT, SCALARS = range(8, 14)
# Then the machine: numbers as in `offsim.simulate.plan.Machine`. COUNTED: stages that somebody
# serves; DECODER, LINK: which of these, or NONE; CONTENDED: whether compute and a decoder slow each
# other down, or the link compute; EVENTS: whether loads keep their rows; COMPUTE_RATE: of what
# compute does now, either EXPERT_RATE or OTHER_RATE. One a stage: HANDOVER, SERVERS, and WAITING:
# loads that could be served there now.
SUBMIT, WAKE, COUNTED, DECODER, LINK, COMPUTE_RATE = range(SCALARS, SCALARS + 6)
DECODE_RATE, PIPELINED, CONTENDED, EVENTS = range(SCALARS + 6, SCALARS + 10)
OTHER_RATE, EXPERT_RATE, ARRIVAL, HANDOVER_KEPT, FETCH, HANDOVER = range(SCALARS + 10, SCALARS + 16)
SERVERS, WAITING, FIRST_SERVER = (HANDOVER + COUNT * at for at in range(1, 4))
# Then the servers of the first stage, of the second and so on, with SERVER places each. STATION:
# the stage that it serves; MODE: one of the three below; FRESH: whether it became idle in this
# instant; ENDS: when it is through with what it does, NEVER where idle; JOB: the row of the load
# that it serves; WORK: undisturbed ps since BEGAN; RUN: chunks of it.
STATION, MODE, FRESH, ENDS, JOB, WORK, BEGAN, RUN, SERVER = range(9)
IDLE, WAKING, BUSY = range(3)

# A load has a row in State.rows, named by the place where it begins. NUMBER: its id, NONE once the
# row is free; CHUNKS: parts that it moves in; URGENT: asked for now; GONE: given up; READY, ASKED:
# ps; SERVICES: stages that serve it now; WAITS: a bit for each stage that could. Then, from PATH
# on, STAGE places for each stage. TIME: ps of all chunks, 0 where not on the path; DONE: chunks
# that were served; SERVED: being served; START, END: of the first and last chunk, ps.
NUMBER, CHUNKS, URGENT, GONE, READY, ASKED, SERVICES, WAITS, PATH = range(9)
TIME, DONE, SERVED, START, END, STAGE = range(6)
ROW = PATH + COUNT * STAGE


class State(NamedTuple):
    """Servers, and the loads that were asked for.

    Attributes:
        st: [FIRST_SERVER + SERVER a server]
        rows: [ROW a row] of loads.
        live: [rows] the loads on their path, oldest first; at the end FREE rows, the next to be
            taken first.
        row_of: [loads] number of the row that each load took; by now it may be another's, as row 0
            is where a load was remembered and took none.
    """

    st: Ints
    rows: Ints
    live: Ints
    row_of: Ids


def used_stages(machine: Machine) -> Ints:
    """[used] stages that somebody serves, rising."""
    return np.flatnonzero(machine.servers)


def fresh_state(machine: Machine, *, events: bool) -> State:
    """Everything idle at time 0, and no row yet."""
    m, used = machine, used_stages(machine)
    place = {stage: at for at, stage in enumerate(used.tolist())}
    decoder = place.get(m.decoder, NONE)
    link = place.get(STAGES.index("link"), NONE)
    rates = {m.compute_rate, m.expert_rate, m.decode_rate}
    contended = m.arrival > 0 or (decoder != NONE and rates != {UNDISTURBED})
    numbers = [m.submit, m.wake, len(used), decoder, link, m.compute_rate, m.decode_rate]
    numbers += [int(m.pipelined), int(contended), int(events), m.compute_rate, m.expert_rate]
    numbers += [m.arrival, m.handover_kept, m.fetch]
    each = np.zeros((3, COUNT), np.int64)
    each[:2, : len(used)] = m.handover[used], m.servers[used]
    servers = np.zeros((int(m.servers.sum()), SERVER), np.int64)
    servers[:, STATION] = np.repeat(np.arange(len(used)), m.servers[used])
    servers[:, ENDS], servers[:, JOB] = NEVER, NONE
    parts = (np.zeros(SCALARS), numbers, each.reshape(-1), servers.reshape(-1))
    st = np.concatenate([np.asarray(part, np.int64) for part in parts])
    st[UNTIL] = st[NEXT] = NEVER
    return State(st, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))


def with_ids(state: State, loads: int) -> State:
    """The same state with room for ids below `loads`."""
    have = len(state.row_of)
    if loads <= have:
        return state
    row_of = np.zeros(max(loads, 2 * have), np.int32)
    row_of[:have] = state.row_of
    return state._replace(row_of=row_of)


def with_rows(state: State, free: int) -> State:
    """The same state with at least so many free rows."""
    lacking = free - int(state.st[FREE])
    if lacking <= 0:
        return state
    have = len(state.live)
    more = max(lacking, have)
    state.st[FREE] += more
    rows = np.empty((more, ROW), np.int64)
    rows[:, NUMBER] = NONE
    fresh = np.arange(have, have + more) * ROW
    return state._replace(
        rows=np.concatenate((state.rows, rows.reshape(-1))),
        live=np.concatenate((state.live, fresh)),
    )


def load_clocks(state: State, machine: Machine, loads: int) -> LoadClocks:
    """When all loads so far happened, those that are under way included.

    Their events were kept: rows are in the order of ids. None where `loads` is 0.
    """
    st, used = state.st, used_stages(machine)
    rows = state.rows.reshape(-1, ROW)[:loads].copy()
    paths = rows[:, PATH:].reshape(loads, COUNT, STAGE)
    link = int(st[LINK])
    for server in st[FIRST_SERVER:].reshape(-1, SERVER):
        # A link notes its chunks when it stops, not at each of them.
        if loads and (server[STATION], server[MODE]) == (link, BUSY) and server[RUN] > 1:
            number = int(server[JOB]) // ROW
            part = paths[number, link, TIME] // rows[number, CHUNKS]
            passed = min((st[NOW] - server[BEGAN]) // part, server[RUN] - 1)  # the last is longer
            if passed:
                paths[number, link, DONE] += passed
                paths[number, link, END] = server[BEGAN] + passed * part
    served = np.full((loads, COUNT, 2), NONE, np.int64)
    served[:, used] = paths[:, : len(used), START : END + 1]
    moved = paths[:, link, DONE] if link != NONE else rows[:, CHUNKS]
    return LoadClocks(rows[:, ASKED], served, moved)
