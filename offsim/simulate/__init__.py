"""The model of time: two engines that replay a trace under a policy on a calibrated machine."""

from offsim.simulate.costs import Costs
from offsim.simulate.simulation import predict, simulate

__all__ = ["Costs", "predict", "simulate"]
