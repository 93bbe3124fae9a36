"""How the fast engine is compiled, and where its machine code is kept."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., object])
# Arrays are borrowed, never made, in compiled code: without reference counts (_nrt), which are
# atomic, it is several times as fast. Nothing here divides by zero.
OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
SIMULATE = Path(__file__).parents[1]
SURE = (1 << 40) - 1
"""An index that is masked with it is not negative: compiled code need not look whether it is."""
PLACE = "CACHE_DIR"
"""Numba's setting, which NUMBA_CACHE_DIR gives."""


def _cache_folder() -> str:
    """Where machine code is kept: one folder for each state of the sources.

    Numba looks only at the file of a function to see whether its code is outdated, not at those of
    the functions that it calls and that are compiled into it.
    """
    record = SIMULATE.parent / "record"
    sources = sorted([*SIMULATE.rglob("*.py"), record / "stall.py", record / "events.py"])
    digest = sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    return str(Path(vars(config)[PLACE] or SIMULATE / "__pycache__") / f"compiled-{digest}")


FOLDER = _cache_folder()


def is_compiled() -> bool:
    """Whether machine code is there; if not, the first simulation takes half a minute more."""
    return any(Path(FOLDER).rglob("*.nbc"))


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, into each of its callers; keep machine code."""
    return _jitted(function, forceinline=True)


def called(function: Function) -> Function:
    """The same for a function that is too large to be in each of its callers."""
    return _jitted(function, forceinline=False)


def _jitted(function: Function, *, forceinline: bool) -> Function:
    before = vars(config)[PLACE]
    vars(config)[PLACE] = FOLDER
    try:
        made: Function = numba.njit(**OPTIONS, forceinline=forceinline)(function)
    finally:
        vars(config)[PLACE] = before
    return made
