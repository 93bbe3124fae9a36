"""The machine: system, CPU, memory, clock."""

import os
import platform
import time
from pathlib import Path

from offsim import __version__
from offsim.cli.probes.base import Found, Probe, fact
from offsim.units import show_bytes, show_seconds

SLEEP_S, SLEEPS = 1e-3, 100
LATE_S = 1e-3
"""So late, an expert of the embedded model (98 KB) takes half as long again on a link of 60 MB/s,
1.6 ms."""
MEMINFO = Path("/proc/meminfo")
GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What a container may take, bytes, or `max` (Linux, control groups version 2)."""


def probes() -> list[Probe]:
    """A row each."""
    return [
        Probe("offsim", lambda: fact(__version__)),
        Probe("Python", python),
        Probe("system", system),
        Probe("CPU", cpu),
        Probe("cores", cores),
        Probe("memory", memory),
        Probe("clock", clock),
    ]


def python() -> Found:
    """Version and implementation."""
    return fact(f"{platform.python_version()}, {platform.python_implementation()}")


def system() -> Found:
    """Name, architecture, C library."""
    library = " ".join(platform.libc_ver())
    return fact(", ".join(filter(None, (f"{platform.system()} {platform.machine()}", library))))


def cpu() -> Found:
    """Its name."""
    from offsim.study.machine import cpu_name

    return fact(cpu_name())


def cores() -> Found:
    """How many there are, and how many of them this program may use."""
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    here = str(there) if usable == there else f"{usable} of {there} for this program"
    if usable == 1:
        return fact(here, "use two or more: on one, compute and the workers of a run take turns")
    return fact(here)


def memory() -> Found:
    """How much there is, how much of it is free, and what a container may take."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    parts = [show_bytes(total)]
    if MEMINFO.exists():
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        parts.append(f"{show_bytes(int(fields['MemAvailable'].split()[0]) * 1024)} available")
    limit = GROUP_LIMIT.read_text().strip() if GROUP_LIMIT.exists() else "max"
    if limit != "max" and int(limit) < total:
        parts.append(f"{show_bytes(int(limit))} for this container")
    return fact(", ".join(parts))


def clock() -> Found:
    """How late a thread wakes, as the one does that carries over a paced link."""
    late = []
    for _ in range(SLEEPS):
        start = time.perf_counter()
        time.sleep(SLEEP_S)
        late.append(time.perf_counter() - start - SLEEP_S)
    late.sort()
    median, p95 = late[SLEEPS // 2], late[SLEEPS * 95 // 100]
    here = (
        f"wakes {show_seconds(median)} late in the median, {show_seconds(p95)} at p95 "
        f"({SLEEPS} sleeps of {show_seconds(SLEEP_S)}, MEASURED)"
    )
    return fact(here, "" if p95 < LATE_S else "leave the machine in peace while you measure")
