"""Writing a random word in upper case."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed, letters


class Upper(Task):
    """`upper kjdhf=` gives `[KJDHF]`."""

    name = "upper"
    title = "upper case"

    def make(self, rng: Random) -> Item:
        word = letters(rng, 3, 8)
        return boxed(f"upper {word}=", word.upper())
