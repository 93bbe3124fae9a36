"""Router traces: which experts each token took, in one file format, recorded from a real model."""

from offsim.trace.format import DECODE, PREFILL, Trace, load_trace, save_trace
from offsim.trace.steps import Step, steps_of

__all__ = ["DECODE", "PREFILL", "Step", "Trace", "load_trace", "save_trace", "steps_of"]
