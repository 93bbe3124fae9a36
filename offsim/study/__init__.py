"""Experiments over the floors below: calibrate, check, and the whole study."""
