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

# Places in State.at. NOW, ps; LIVE: loads on their path; ACTIVE: servers not idle; SERVING:
# decoders that contend with compute; WORKING: whether compute works, with LEFT ps of undisturbed
# work since SINCE, and its end UNTIL; COLD: of the last layer, ps; POKED: a bit for each stage
# where something may start in this instant; ENDING: whether something else ends in it.
NOW, LIVE, ACTIVE, SERVING, WORKING, LEFT, SINCE, UNTIL, COLD, POKED, ENDING, SCALARS = range(12)

# Columns of State.servers. STATION: the stage that it serves; MODE: one of the three below; FRESH:
# whether it became idle in this instant; ENDS: when it is through with what it does, NEVER where
# idle; JOB: the load that it serves; WORK: undisturbed ps since BEGAN.
STATION, MODE, FRESH, ENDS, JOB, WORK, BEGAN, RUN, SERVER = range(9)
IDLE, WAKING, BUSY = range(3)

# Columns of State.loads. CHUNKS: parts that it moves in; URGENT: asked for now; GONE: given up;
# READY, ASKED: ps; then for each stage STAGE: ps of all chunks, 0 where not on the path; DONE:
# chunks that were served; SERVED: being served; START, END: of the first and last chunk, ps.
CHUNKS, URGENT, GONE, READY, ASKED, STAGE = range(6)
DONE, SERVED, START, END, LOAD = (STAGE + COUNT * at for at in range(1, 6))

# Places in the machine as an array: numbers as in `offsim.simulate.plan.Machine`.
SUBMIT, WAKE, DECODER, COMPUTE_RATE, DECODE_RATE, PIPELINED, HANDOVER = range(7)
SERVERS, MACHINE = HANDOVER + COUNT, HANDOVER + 2 * COUNT
FIRST_ROOM = 64


class State(NamedTuple):
    """Servers, and the loads that were asked for.

    Attributes:
        at: [SCALARS]
        servers: [servers, SERVER] of the first stage, then of the second and so on.
        loads: [loads, LOAD]; a row means something once its load was asked for.
        live: [loads] ids of the loads on their path, oldest first.
    """

    at: Ints
    servers: Ints
    loads: Ints
    live: Ints


def machine_array(machine: Machine) -> Ints:
    """[MACHINE] a machine without its cooling."""
    m = machine
    numbers = [m.submit, m.wake, m.decoder, m.compute_rate, m.decode_rate, int(m.pipelined)]
    return np.concatenate((numbers, m.handover, m.servers)).astype(np.int64)


def fresh_state(machine: Machine) -> State:
    """Everything idle at time 0."""
    at = np.zeros(SCALARS, np.int64)
    at[UNTIL] = NEVER
    servers = np.zeros((int(machine.servers.sum()), SERVER), np.int64)
    servers[:, STATION] = np.repeat(np.arange(COUNT), machine.servers)
    servers[:, ENDS], servers[:, JOB] = NEVER, NONE
    return State(at, servers, *_room(FIRST_ROOM))


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
    for server in state.servers:  # a link notes its chunks when it stops, not at each of them
        job = int(server[JOB])
        if (server[STATION], server[MODE]) == (LINK, BUSY) and server[RUN] > 1 and job < loads:
            part = rows[job, STAGE + LINK] // rows[job, CHUNKS]
            passed = (state.at[NOW] - server[BEGAN]) // part
            if passed:
                rows[job, DONE + LINK] += passed
                rows[job, END + LINK] = server[BEGAN] + passed * part
    served = np.stack((rows[:, START : START + COUNT], rows[:, END : END + COUNT]), 2)
    return LoadClocks(rows[:, ASKED], served, rows[:, DONE + LINK])
