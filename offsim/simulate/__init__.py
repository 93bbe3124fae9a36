"""The model of time: a SimPy engine that replays a trace under a policy on a calibrated machine."""

from offsim.simulate.costs import Costs
from offsim.simulate.engine import simulate

__all__ = ["Costs", "simulate"]
