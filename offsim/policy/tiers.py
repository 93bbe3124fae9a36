"""Where blobs are before they are asked for: in host memory, or on disk beneath it."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from offsim.policy.evictions import Key


class Sizes(NamedTuple):
    """Bytes of experts in the places where they stay.

    Attributes:
        blob: of an expert as host memory holds it, and the device where it keeps blobs.
        decoded: of any expert in its stored dtype.
    """

    blob: Callable[[Key], int]
    decoded: int

    def kept(self, keep: str) -> "Sizes":
        """As a device counts that keeps experts `decoded`, `compressed` or `both`.

        The first of the two is then of whatever its only tier holds, or of blobs beside a tier of
        decoded experts.
        """
        return Sizes(lambda _: self.decoded, self.decoded) if keep == "decoded" else self


class HostMemory:
    """Blobs in host memory, by bytes; the one that was not loaded for longest leaves.

    It is decided without a clock: a blob counts as there from the decision that brings it. At the
    start it holds the first experts, up to the first that does not fit; the very first is the
    oldest. A blob larger than all of it passes through and makes nobody leave.

    Args:
        capacity: bytes.
        experts: all, in the order in which they fill it.
        nbytes: of an expert's blob.

    Attributes:
        left: who left for the last load.
    """

    def __init__(self, capacity: int, experts: Iterable[Key], nbytes: Callable[[Key], int]) -> None:
        self._free, self._capacity, self._nbytes = capacity, capacity, nbytes
        self._held: dict[Key, int] = {}  # the oldest first
        self.left: list[Key] = []
        for key in experts:
            size = nbytes(key)
            if size > self._free:
                break
            self._put(key, size)

    @property
    def used(self) -> int:
        """Bytes of what it holds."""
        return self._capacity - self._free

    def __contains__(self, key: Key) -> bool:
        """Whether it holds an expert's blob."""
        return key in self._held

    def load(self, key: Key) -> bool:
        """A load needs a blob: whether it has to be read from disk. It is there from now on."""
        self.left = []
        if key in self._held:
            self._held[key] = self._held.pop(key)
            return False
        size = self._nbytes(key)
        if size <= self._capacity:
            while size > self._free:
                oldest = next(iter(self._held))
                self._free += self._held.pop(oldest)
                self.left.append(oldest)
            self._put(key, size)
        return True

    def _put(self, key: Key, size: int) -> None:
        self._held[key] = size
        self._free -= size
