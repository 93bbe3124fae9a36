"""The model of time: two engines that replay a trace under a policy on a calibrated machine."""

from offsim.simulate.batching import Batching
from offsim.simulate.costs import Costs
from offsim.simulate.serving import serve
from offsim.simulate.simulation import predict, simulate

__all__ = ["Batching", "Costs", "predict", "serve", "simulate"]
