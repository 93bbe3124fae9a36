"""Copying a random word."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed, letters


class Copy(Task):
    """`copy kjdhf=` gives `[kjdhf]`."""

    name = "copy"
    title = "copy"

    def make(self, rng: Random) -> Item:
        word = letters(rng, 3, 8)
        return boxed(f"copy {word}=", word)
