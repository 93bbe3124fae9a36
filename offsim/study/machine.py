"""What the machine says of itself."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The CPU as its maker calls it, where the system tells; else its architecture."""
    if CPUINFO.exists():
        for text in CPUINFO.read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()
