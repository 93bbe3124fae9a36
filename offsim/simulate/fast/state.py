"""Where the fast engine stands: arrays that compiled code reads and writes."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.record.events import STAGES
from offsim.simulate.clock import Ints
from offsim.simulate.plan import NONE, Machine

NEVER = np.iinfo(np.int64).max
# Places in State.at: what a Python object would hold as attributes.
NOW, LIVE, ACTIVE, SERVING, WORKING, LEFT, SINCE, UNTIL, COLD, POKED, SCALARS = range(11)
IDLE, WAKING, BUSY = range(3)
FIRST_ROOM = 64


class State(NamedTuple):
    """Servers, and the loads that were asked for. Times in ps.

    Attributes:
        at: [SCALARS] NOW; LIVE: loads on their path; ACTIVE: servers not idle; SERVING: decoders
            that contend with compute; WORKING: whether compute does, with LEFT undisturbed work
            since SINCE, and its end UNTIL; COLD: of the last layer; POKED: stations to look at.
        station: [servers] stage that each serves, rising.
        mode: [servers] IDLE, WAKING or BUSY.
        fresh: [servers] whether it became idle in this instant.
        until: [servers] end of what it does, NEVER where idle.
        job: [servers] load that it serves.
        left: [servers] undisturbed work since `since`; of the decoders that contend.
        since: [servers] see there.
        poked: [stages] whether something may start there in this instant.
        live: [room] ids of the loads on their path, oldest first.
        stages: [loads, stages] work in each stage, all chunks together; 0: not on its path.
        chunks: [loads] how many.
        done: [loads, stages] chunks that were served.
        serving: [loads, stages] whether it is being served.
        urgent: [loads] whether it is asked for now.
        gone: [loads] whether it was given up.
        ready: [loads] when it was, NONE before.
        asked: [loads] when it was asked for.
        served: [loads, stages, 2] start of the first and end of the last chunk.
    """

    at: Ints
    station: Ints
    mode: Ints
    fresh: Ints
    until: Ints
    job: Ints
    left: Ints
    since: Ints
    poked: Ints
    live: Ints
    stages: Ints
    chunks: Ints
    done: Ints
    serving: npt.NDArray[np.bool_]
    urgent: npt.NDArray[np.bool_]
    gone: npt.NDArray[np.bool_]
    ready: Ints
    asked: Ints
    served: Ints


LOADS = (
    "live",
    "stages",
    "chunks",
    "done",
    "serving",
    "urgent",
    "gone",
    "ready",
    "asked",
    "served",
)
"""Fields with a row a load. What is not yet asked for is not yet filled in."""


def fresh_state(machine: Machine) -> State:
    """Everything idle at time 0."""
    station = np.repeat(np.arange(len(STAGES)), machine.servers)
    at = np.zeros(SCALARS, np.int64)
    at[UNTIL] = NEVER

    def by_server(value: int = 0) -> Ints:
        return np.full(len(station), value, np.int64)

    return State(
        at,
        station,
        by_server(IDLE),
        by_server(),
        by_server(NEVER),
        by_server(NONE),
        by_server(),
        by_server(),
        np.zeros(len(STAGES), np.int64),
        **_rows(FIRST_ROOM),
    )


def _rows(loads: int) -> dict[str, npt.NDArray[Any]]:
    stages = len(STAGES)
    shapes = {
        "stages": (loads, stages),
        "done": (loads, stages),
        "serving": (loads, stages),
        "served": (loads, stages, 2),
    }
    flags = {"serving", "urgent", "gone"}
    return {
        name: np.empty(shapes.get(name, loads), np.bool_ if name in flags else np.int64)
        for name in LOADS
    }


def with_room(state: State, loads: int) -> State:
    """The same state with room for ids below `loads`."""
    have = len(state.ready)
    if loads <= have:
        return state
    rows = _rows(max(loads, 2 * have))
    for name, array in rows.items():
        array[:have] = getattr(state, name)
    return state._replace(**rows)
