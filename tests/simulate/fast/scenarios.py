"""Random plans and machines, which cover everything that the engines claim."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from offsim.record.events import STAGES
from offsim.simulate.clock import rate_of
from offsim.simulate.plan import NONE, Kinds, Machine, Plan


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Round numbers, so that many things happen at the same instant."""
    small = st.integers(0, 6)
    points = draw(st.integers(0, 2))
    idle = np.cumsum([0, *(draw(st.integers(1, 9)) for _ in range(points))])
    extra = np.array([0, *(draw(small) for _ in range(points))])
    slowdowns = st.sampled_from([1.0, 1.0, 1.3, 2.0, 3.7])
    return Machine(
        submit=draw(small),
        fetch=draw(small),
        wake=draw(small),
        handover=np.array([draw(small) for _ in STAGES]),
        handover_kept=draw(small),
        servers=np.array([draw(st.sampled_from([1, 1, 2, 3])) for _ in STAGES]),
        decoder=draw(st.sampled_from([STAGES.index("host decode"), STAGES.index("device decode")])),
        compute_rate=rate_of(draw(slowdowns)),
        expert_rate=rate_of(draw(slowdowns)),
        decode_rate=rate_of(draw(slowdowns)),
        arrival=draw(st.sampled_from([0, 0, 1, 3])),
        pipelined=draw(st.booleans()),
        cooling_idle=idle,
        cooling_extra=extra,
        still_cold=draw(st.sampled_from([0.0, 0.5])),
    )


@st.composite
def kinds(draw: st.DrawFn, most: int = 4) -> Kinds:
    """Some kinds of loads; each has something on its path."""
    count = draw(st.integers(1, most))
    durations = st.sampled_from([0, 1, 5, 10, 20, 37])
    stages = np.array([[draw(durations) for _ in STAGES] for _ in range(count)])
    chunks = np.array([draw(st.sampled_from([1, 1, 2, 3, 7])) for _ in range(count)])
    resident = np.array([draw(st.sampled_from([False, False, True])) for _ in range(count)])
    nbytes = np.where(resident, 0, np.arange(1, count + 1) * 100)
    stages[resident, : STAGES.index("device decode")] = 0
    return Kinds.of(stages, chunks, nbytes, nbytes // 2, resident)


@st.composite
def plans(draw: st.DrawFn, count: int = 1, *, alike: bool = False) -> list[Plan]:
    """Plans that go on from each other, with demands, prefetches, uses of both, and drops.

    Where layers are alike, many go as one before them: there are few kinds and durations, time
    for loads to arrive, and something is fetched ahead before each layer but the first of a step.
    """
    layers = draw(st.integers(20, 60) if alike else st.integers(1, 3))
    many = 2 if alike else 3
    table = draw(kinds(2 if alike else 4))
    each, most = (st.integers(50, 400), 2) if alike else (st.integers(0, 25), 4)
    durations = np.array(draw(st.lists(each, min_size=1, max_size=most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pending: list[int] = []
    made, first_load, now = [], 0, 0
    for _ in range(count):
        steps = draw(st.integers(1, 2 if alike else 5))
        ahead = alike or draw(st.booleans())
        columns: dict[str, list[int]] = {name: [] for name in Plan._fields}
        loads = first_load
        for _ in range(steps):
            now += int(rng.choice([0, 0, 0, 150]))
            columns["begin"].append(now)
            columns["head"].append(int(rng.integers(len(durations))))
            for _ in range(layers):
                columns["before"].append(int(rng.integers(len(durations))))
                uses = []
                for _ in range(int(rng.integers(0, many))):
                    uses.append(loads)
                    _load(columns, table, pending, rng)
                    loads += 1
                columns["demands_to"].append(len(columns["kind"]))
                while pending and rng.random() < 0.5:
                    uses.append(pending.pop(int(rng.integers(len(pending)))))
                uses += [NONE] * int(rng.integers(0, many))
                demands = [use for use in uses if use >= first_load + 0]
                order = rng.permutation(len(uses))
                shuffled = [uses[at] for at in order]
                columns["load"] += _demands_in_order(shuffled, demands)
                kept = 1 if alike else len(durations)
                columns["run"] += rng.integers(kept, size=len(uses)).tolist()
                columns["uses_to"].append(len(columns["run"]))
                for _ in range(int(rng.integers(alike, 3)) if ahead else 0):
                    _load(columns, table, pending, rng)
                    pending.append(loads)
                    loads += 1
                columns["loads_to"].append(len(columns["kind"]))
        made.append(_plan(columns, layers, first_load, durations, table))
        first_load = loads
    return made


def _demands_in_order(shuffled: list[int], demands: list[int]) -> list[int]:
    """Loads of a lookup are asked for in router order, so their ids rise in it."""
    rising = iter(sorted(demands))
    return [next(rising) if use in demands else use for use in shuffled]


def _load(columns: dict[str, list[int]], table: Kinds, pending: list[int], rng: Any) -> None:
    columns["kind"].append(int(rng.integers(len(table.chunks))))
    if pending and rng.random() < 0.3:
        columns["drop"].append(pending.pop(int(rng.integers(len(pending)))))
    columns["drops_to"].append(len(columns["drop"]))


def _plan(
    columns: dict[str, list[int]], layers: int, first_load: int, durations: Any, table: Kinds
) -> Plan:
    arrays = {
        name: np.array(values, np.int64 if name == "begin" else np.int32)
        for name, values in columns.items()
        if name not in {"layers", "first_load", "durations", "kinds", "recurs"}
    }
    return Plan(
        layers=layers,
        first_load=first_load,
        **arrays,
        durations=durations.astype(np.int64),
        kinds=table,
        recurs=True,
    )
