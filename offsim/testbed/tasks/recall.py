"""Associative recall: which digit stood beside a letter."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed


class Recall(Task):
    """`a4 k7 c2 m9 k?` gives `[7]`: three to five pairs with distinct letters."""

    name = "recall"
    title = "recall"

    def make(self, rng: Random) -> Item:
        keys = rng.sample("abcdefghijklmnopqrstuvwxyz", rng.randint(3, 5))
        values = [rng.randrange(10) for _ in keys]
        pairs = " ".join(f"{key}{value}" for key, value in zip(keys, values, strict=True))
        asked = rng.randrange(len(keys))
        return boxed(f"{pairs} {keys[asked]}?", str(values[asked]))
