"""What `offsim doctor` looks at: one small function a row, one module a group of rows.

A probe imports what it looks at only when it looks, so that one thing that does not even load is
one row, and all others are still seen. A new probe is a function and its line in `probes()` of
its module; a new group is a module and its line in `offsim.cli.probes.registry`.
"""
