"""Units: SI everywhere inside (seconds, bytes, bytes per second); text only at the edges."""

from typing import Final

KB: Final = 1_000
MB: Final = 1_000_000
GB: Final = 1_000_000_000
MIB: Final = 1 << 20


def show_bytes(count: float) -> str:
    """Bytes as a short decimal text, such as `98.3 KB`."""
    for size, unit in ((GB, "GB"), (MB, "MB"), (KB, "KB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def show_seconds(seconds: float) -> str:
    """Seconds as a short text, such as `2.61 ms`."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
