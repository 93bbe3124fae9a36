"""Subtraction of a number below one hundred from a larger one."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed


class Sub(Task):
    """`85-47=` gives `[38]`."""

    name = "sub"
    title = "subtraction"

    def make(self, rng: Random) -> Item:
        b, a = sorted((rng.randrange(100), rng.randrange(100)))
        return boxed(f"{a}-{b}=", str(a - b))
