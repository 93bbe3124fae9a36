"""Reversing a random word."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed, letters


class Reverse(Task):
    """`reverse kjdhf=` gives `[fhdjk]`."""

    name = "reverse"
    title = "reverse"

    def make(self, rng: Random) -> Item:
        word = letters(rng, 3, 7)
        return boxed(f"reverse {word}=", word[::-1])
