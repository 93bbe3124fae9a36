"""The two engines agree to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.simulate.clock import UNDISTURBED
from offsim.simulate.engine import SimpyEngine
from offsim.simulate.fast import FastEngine
from offsim.simulate.fast.state import fresh_state, with_rows
from offsim.simulate.plan import Kinds, Machine, Plan
from tests.simulate.fast.scenarios import machines, plans


@settings(max_examples=600, deadline=None, derandomize=True)
@given(machines(), st.integers(1, 3).flatmap(plans), st.booleans())
def test_equal_clocks(machine: Machine, parts: list[Plan], events: bool) -> None:
    simpy, fast = SimpyEngine(machine, events=events), FastEngine(machine, events=events)
    for part in parts:
        expected, found = simpy.advance(part), fast.advance(part)
        for name in expected._fields:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert fast.now == simpy.now
    expected_loads, found_loads = simpy.loads(), fast.loads()
    for name in expected_loads._fields:
        np.testing.assert_array_equal(
            getattr(found_loads, name), getattr(expected_loads, name), name
        )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(machines(), plans(), st.sampled_from([SimpyEngine, FastEngine]))
def test_what_is_remembered_is_what_would_have_happened(
    machine: Machine, parts: list[Plan], engine: type[SimpyEngine] | type[FastEngine]
) -> None:
    (plan,) = parts
    remembered = engine(machine, events=False).advance(plan)
    forgotten = engine(machine, events=False).advance(plan._replace(recurs=False))
    for name in remembered._fields:
        np.testing.assert_array_equal(getattr(remembered, name), getattr(forgotten, name))


def test_layers_with_prefetches_are_found_again() -> None:
    """SimPy remembers none of them: it goes through each."""
    found = lookups = 0

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(machines(), st.integers(1, 2).flatmap(lambda count: plans(count, alike=True)))
    def check(machine: Machine, parts: list[Plan]) -> None:
        nonlocal found, lookups
        simpy, fast = SimpyEngine(machine, events=False), FastEngine(machine, events=False)
        for part in parts:
            before = fast.found
            expected, clocks = simpy.advance(part), fast.advance(part)
            for name in expected._fields:
                np.testing.assert_array_equal(getattr(clocks, name), getattr(expected, name), name)
            lookups += len(part.before) - part.steps
            # Of these at most so many begin a step, and then with nothing fetched ahead.
            found += max(0, fast.found - before - part.steps)

    check()
    assert found > 0.1 * lookups


@pytest.mark.parametrize("engine", [SimpyEngine, FastEngine])
def test_nothing_is_remembered_of_a_server_that_stopped_in_this_instant(
    engine: type[SimpyEngine | FastEngine],
) -> None:
    """It serves the next load without a hand-over, so that such a layer goes faster."""
    none, loads = np.zeros(4, np.int32), np.arange(4, dtype=np.int32)
    plan = Plan(
        layers=1,
        first_load=0,
        begin=np.zeros(4, np.int64),
        head=none,
        before=none,
        uses_to=loads + 1,
        run=none,
        load=loads,
        demands_to=loads + 1,
        loads_to=loads + 1,
        kind=none,
        drops_to=none,
        drop=none[:0],
        durations=np.zeros(1, np.int64),
        kinds=Kinds.of(np.array([[0, 0, 0, 10, 0]]), np.ones(1, np.int64), np.array([100])),
        recurs=True,
    )
    stages, nothing = np.ones(5, np.int64), np.zeros(1, np.int64)
    machine = Machine(
        0, 0, 0, 5 * stages, 5, stages, 4, *3 * (UNDISTURBED,), 0, False, nothing, nothing, 0.0
    )
    clocks = engine(machine, events=False).advance(plan)
    assert clocks.end.tolist() == [15, 25, 35, 45]


def test_rows_are_added_only_where_too_few_are_free() -> None:
    """Serving goes on a step at a time, thousands of times with one state."""
    stages, nothing = np.ones(5, np.int64), np.zeros(1, np.int64)
    machine = Machine(
        0, 0, 0, 5 * stages, 5, stages, 4, *3 * (UNDISTURBED,), 0, False, nothing, nothing, 0.0
    )
    state = with_rows(fresh_state(machine, events=False), 5)
    assert with_rows(state, 5) is state
    assert len(with_rows(state, 6).live) == 10
