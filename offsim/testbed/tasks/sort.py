"""Sorting the letters of a random word."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed, letters


class Sort(Task):
    """`sort kjdhf=` gives `[dfhjk]`."""

    name = "sort"
    title = "sort"

    def make(self, rng: Random) -> Item:
        word = letters(rng, 3, 7)
        return boxed(f"sort {word}=", "".join(sorted(word)))
