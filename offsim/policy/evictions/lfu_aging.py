"""Least frequently used with dynamic aging."""

from collections.abc import Container, Sequence

from offsim.policy.evictions.base import Key, PoolFacts
from offsim.policy.evictions.scored import Scored


class LfuAging(Scored):
    """LFU in which what was popular long ago leaves too.

    An expert's number is its uses since it came plus the age of the pool at the last of them; the
    age is the number of the last one that left: LFUDA (Arlitt et al. 2000, "Evaluating content
    management techniques for Web proxy caches").
    """

    name = "lfu-aging"

    def __init__(self, facts: PoolFacts) -> None:
        super().__init__(facts)
        self._uses: dict[Key, int] = {}
        self._number: dict[Key, int] = {}
        self._age = 0

    def score(self, key: Key) -> float:
        """Uses and the age at the last one."""
        return self._number[key]

    def admit(self, key: Key, nbytes: int) -> None:
        """At the present age."""
        super().admit(key, nbytes)
        self._uses[key], self._number[key] = 0, self._age

    def victim(self, keep: Container[Key]) -> Key | None:
        """Its number is the new age."""
        key = super().victim(keep)
        if key is not None:
            del self._uses[key]
            self._age = self._number.pop(key)
        return key

    def used(self, keys: Sequence[Key], weights: Sequence[float]) -> None:
        """One more use for each."""
        super().used(keys, weights)
        for key in keys:
            if key in self._number:
                self._uses[key] += 1
                self._number[key] = self._uses[key] + self._age
