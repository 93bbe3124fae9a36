"""Many what-ifs: a SPEC of scenarios, simulated side by side into one SQLite file.

docs/sweep.md says what a SPEC is and what is in the file.
"""
