"""The two engines agree to the last bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.simulate.engine import SimpyEngine
from offsim.simulate.fast import FastEngine
from offsim.simulate.plan import Machine, Plan
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
