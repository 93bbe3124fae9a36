"""How the fast engine is compiled, and where its machine code is kept."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., object])
# Arrays are borrowed, never made, in compiled code: without reference counts (_nrt), which are
# atomic, and with every call inlined, it is ten times as fast. Nothing here divides by zero.
OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "_nrt": False,
    "forceinline": True,
}
SIMULATE = Path(__file__).parents[1]
PLACE = "CACHE_DIR"
"""Numba's setting, which NUMBA_CACHE_DIR gives."""


def _cache_folder() -> str:
    """Where machine code is kept: one folder for each state of the sources.

    Numba looks only at the file of a function to see whether its code is outdated, not at those of
    the functions that it calls and that are compiled into it.
    """
    sources = sorted([*SIMULATE.rglob("*.py"), SIMULATE.parent / "record" / "stall.py"])
    digest = sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    return str(Path(vars(config)[PLACE] or SIMULATE / "__pycache__") / f"compiled-{digest}")


FOLDER = _cache_folder()


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, and keep its machine code."""
    before = vars(config)[PLACE]
    vars(config)[PLACE] = FOLDER
    try:
        made: Function = numba.njit(**OPTIONS)(function)
    finally:
        vars(config)[PLACE] = before
    return made
