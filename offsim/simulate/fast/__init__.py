"""The fast engine: the contract of the SimPy engine, compiled; equal to it to the last bit."""

from offsim.simulate.fast.engine import FastEngine

__all__ = ["FastEngine"]
