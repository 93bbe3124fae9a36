"""Addition of two numbers below one hundred."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed


class Add(Task):
    """`47+85=` gives `[132]`."""

    name = "add"
    title = "addition"

    def make(self, rng: Random) -> Item:
        a, b = rng.randrange(100), rng.randrange(100)
        return boxed(f"{a}+{b}=", str(a + b))
