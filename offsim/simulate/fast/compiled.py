"""How the fast engine is compiled."""

from typing import Any

import numba

# Arrays are borrowed, never made, in compiled code: without reference counts (_nrt), which are
# atomic, and with every call inlined, it is ten times as fast. Nothing here divides by zero.
OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "_nrt": False,
    "forceinline": True,
}
compiled = numba.njit(**OPTIONS)
