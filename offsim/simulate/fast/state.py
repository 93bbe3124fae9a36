"""Where the fast engine stands: a few whole-number arrays that compiled code reads and writes.

Few, because compiled code pays for every array that it hands on. What would be attributes of
objects are columns here.
"""

from typing import NamedTuple

import numpy as np

from offsim.record.events import STAGES
from offsim.simulate.clock import Ints
from offsim.simulate.plan import NONE, LoadClocks, Machine

NEVER = np.iinfo(np.int64).max
COUNT = len(STAGES)
LINK = STAGES.index("link")

# Places in State.st. NOW, ps; LIVE: loads on their path; ACTIVE: servers not idle; SERVING:
# decoders that contend with compute; WORKING: whether compute works, with LEFT ps of undisturbed
# work since SINCE, and its end UNTIL; COLD: of the last layer, ps; POKED: a bit for each stage
# where something may start in this instant; ENDING: whether something else ends in it.
NOW, LIVE, ACTIVE, SERVING, WORKING, LEFT, SINCE, UNTIL, COLD, POKED, ENDING, SCALARS = range(12)
# Then the machine: numbers as in `offsim.simulate.plan.Machine`, the last two one a stage.
SUBMIT, WAKE, DECODER, COMPUTE_RATE, DECODE_RATE, PIPELINED, HANDOVER = range(SCALARS, SCALARS + 7)
SERVERS, FIRST_SERVER = HANDOVER + COUNT, HANDOVER + 2 * COUNT
# Then the servers of the first stage, of the second and so on, with SERVER places each. STATION:
# the stage that it serves; MODE: one of the three below; FRESH: whether it became idle in this
# instant; ENDS: when it is through with what it does, NEVER where idle; JOB: the load that it
# serves; WORK: undisturbed ps since BEGAN; RUN: chunks of it.
STATION, MODE, FRESH, ENDS, JOB, WORK, BEGAN, RUN, SERVER = range(9)
IDLE, WAKING, BUSY = range(3)

# Columns of State.loads. CHUNKS: parts that it moves in; URGENT: asked for now; GONE: given up;
# READY, ASKED: ps; then for each stage STAGE: ps of all chunks, 0 where not on the path; DONE:
# chunks that were served; SERVED: being served; START, END: of the first and last chunk, ps.
CHUNKS, URGENT, GONE, READY, ASKED, STAGE = range(6)
DONE, SERVED, START, END, LOAD = (STAGE + COUNT * at for at in range(1, 6))

FIRST_ROOM = 64


class State(NamedTuple):
    """Servers, and the loads that were asked for.

    Attributes:
        st: [FIRST_SERVER + SERVER a server]
        loads: [loads, LOAD]; a row means something once its load was asked for.
        live: [loads] ids of the loads on their path, oldest first.
    """

    st: Ints
    loads: Ints
    live: Ints


def fresh_state(machine: Machine) -> State:
    """Everything idle at time 0."""
    m = machine
    numbers = [m.submit, m.wake, m.decoder, m.compute_rate, m.decode_rate, int(m.pipelined)]
    servers = np.zeros((int(m.servers.sum()), SERVER), np.int64)
    servers[:, STATION] = np.repeat(np.arange(COUNT), m.servers)
    servers[:, ENDS], servers[:, JOB] = NEVER, NONE
    parts = (np.zeros(SCALARS), numbers, m.handover, m.servers, servers.reshape(-1))
    st = np.concatenate([np.asarray(part, np.int64) for part in parts])
    st[UNTIL] = NEVER
    return State(st, *_room(FIRST_ROOM))


def _room(loads: int) -> tuple[Ints, Ints]:
    return np.empty((loads, LOAD), np.int64), np.empty(loads, np.int64)


def with_room(state: State, loads: int) -> State:
    """The same state with room for ids below `loads`."""
    have = len(state.live)
    if loads <= have:
        return state
    more, live = _room(max(loads, 2 * have))
    more[:have], live[:have] = state.loads, state.live
    return state._replace(loads=more, live=live)


def load_clocks(state: State, loads: int) -> LoadClocks:
    """When the first so many loads happened, those that are under way included."""
    rows = state.loads[:loads].copy()
    for server in state.st[FIRST_SERVER:].reshape(
        -1, SERVER
    ):  # a link notes its chunks when it stops, not at each of them
        job = int(server[JOB])
        if (server[STATION], server[MODE]) == (LINK, BUSY) and server[RUN] > 1 and job < loads:
            part = rows[job, STAGE + LINK] // rows[job, CHUNKS]
            passed = (state.st[NOW] - server[BEGAN]) // part
            if passed:
                rows[job, DONE + LINK] += passed
                rows[job, END + LINK] = server[BEGAN] + passed * part
    served = np.stack((rows[:, START : START + COUNT], rows[:, END : END + COUNT]), 2)
    return LoadClocks(rows[:, ASKED], served, rows[:, DONE + LINK])
