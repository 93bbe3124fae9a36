"""The link between host and device on a machine that has none: a copy, paced if wanted."""

import time

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class Link:
    """Copies bytes one transfer at a time.

    Args:
        bytes_per_s: a transfer takes at least bytes / bytes_per_s; None for the plain copy.
    """

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self.bytes_per_s = bytes_per_s

    def copy(self, parts: list[Bytes]) -> list[Bytes]:
        """Copy arrays [bytes] uint8 to fresh memory and wait out the pace of their sum."""
        start = time.perf_counter()
        copies = [part.copy() for part in parts]
        if self.bytes_per_s is not None:
            nbytes = sum(part.nbytes for part in parts)
            left = start + nbytes / self.bytes_per_s - time.perf_counter()
            if left > 0:
                time.sleep(left)
        return copies
