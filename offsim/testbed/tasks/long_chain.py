"""Longer sums in the head than were trained on: the hard task."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed
from offsim.testbed.tasks.chain import summed


class LongChain(Task):
    """`7+18-3+5-11+2=` gives `[18]`: five or six terms, where training has three to five."""

    name = "long"
    title = "longer multi-step"

    def make(self, rng: Random) -> Item:
        return boxed(*summed(rng, rng.randint(5, 6)))
