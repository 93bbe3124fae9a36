"""Pure decisions: which bound, which expert stays, what is loaded next.

No clock, no device and no file in here, so that the simulator and the real run, which import the
same classes, decide the same.
"""
