"""The cores that compute and the workers run on, and who has them when both want one."""

import ctypes
import os
import platform
import struct
import sys
import threading

SLICE_NS = 100_000
"""The shortest that Linux grants."""
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of this call, which the standard library does not have, by architecture
(Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h)."""

# Taken once: a thread that is pinned, and what it starts, would see only its own core.
_AVAILABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores() -> tuple[set[int], set[int]]:
    """Cores for compute and for the workers: one and the others, or both the only one there is."""
    return set(_AVAILABLE[:1]), set(_AVAILABLE[1:]) or set(_AVAILABLE)


def pin(to: set[int]) -> None:
    """Bind the calling thread to cores, where the system can."""
    if to and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(threading.get_native_id(), to)


def run_promptly() -> bool:
    """Let the calling thread have its core as soon as it wakes, where the system can.

    A thread that carries sleeps, wakes for some microseconds, and sleeps again, on a core on which
    another one decodes for milliseconds. Linux lets who runs go on for up to 3 ms, but for those
    who ask for shorter slices of time than that (`sched_setattr(2)`, from 6.12 on), and the link
    would be late by as much; the engine of a device that moves bytes waits for no core.

    Returns:
        Whether the system has accepted that.
    """
    number = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)  # kept as it is
    # struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, runtime, deadline,
    # period; the runtime of this policy is the slice.
    attributes = struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, SLICE_NS, 0, 0)
    refused: int = ctypes.CDLL(None).syscall(number, 0, attributes, 0)
    return refused == 0
