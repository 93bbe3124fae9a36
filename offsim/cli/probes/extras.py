"""The optional extras, and what of them is installed."""

from collections.abc import Iterator
from functools import partial

from offsim.cli.probes.base import Found, Probe, missing, works

CUDA_OF = {"gpu": 13, "gpu-cu12": 12, "gpu-cu13": 13, "nvcomp": 13}
"""The CUDA that an extra is for, by its major version; no other extra needs a device."""


def probes() -> Iterator[Probe]:
    """A row an extra."""
    from offsim.cli.probes.packages import extras

    for name in extras():
        yield Probe(f"extra {name}", partial(extra, name))


def extra(name: str) -> Found:
    """Whether all packages of an extra are there, in the versions that it asks for."""
    from offsim.cli.probes.packages import installed, lacking, requirements

    wanted = requirements(name)
    lacks = lacking(wanted)
    if not lacks:
        there = (f"{one.name} {installed(one.name)}" for one in wanted)
        return works(", ".join(there) or "needs nothing on this system")
    if len(lacks) < len(wanted):
        lacks.append("the rest is there")
    return missing(", ".join(lacks), f"pip install 'offsim[{name}]'" if is_of_use(name) else "")


def is_of_use(name: str) -> bool:
    """Whether an extra is for this machine: those for CUDA, by what its driver can."""
    from offsim.cli.probes.cuda import driver, newest

    if name not in CUDA_OF:
        return True
    here = driver()
    return here is not None and bool(here.devices) and newest(here) == CUDA_OF[name]
