"""Word problems from templates, solved step by step with the result in a box."""

import re
from random import Random

from offsim.testbed.tasks.base import Item, Task

NAMES = ("Ann", "Ben", "Eva", "Ida", "Leo", "Max", "Sam", "Tom", "Una", "Zoe")
THINGS = ("pens", "eggs", "cups", "nuts", "keys", "hats", "bags", "figs")
GAINS = ("buys", "gets", "finds", "wins")
LOSSES = ("sells", "loses", "gives away", "drops")


class Word(Task):
    """`Tom has 23 pens, buys 14 and loses 5. How many?` gives `23+14=37;37-5=32;[32]`."""

    name = "word"
    title = "word problems"

    def make(self, rng: Random) -> Item:
        start, gain = rng.randint(2, 49), rng.randint(2, 49)
        middle = start + gain
        text = f"{rng.choice(NAMES)} has {start} {rng.choice(THINGS)}, {rng.choice(GAINS)} {gain}"
        steps = f"{start}+{gain}={middle};"
        total = middle
        if rng.random() < 0.7:
            loss = rng.randint(1, min(49, middle))
            total = middle - loss
            text += f" and {rng.choice(LOSSES)} {loss}"
            steps += f"{middle}-{loss}={total};"
        return Item(f"{text}. How many? ", f"{steps}[{total}]", str(total))

    def format_right(self, item: Item, output: str) -> bool:
        """The steps are free, but the answer ends in one box that holds the result."""
        return re.fullmatch(rf"[^\[\]]*\[{item.content}\]", output) is not None
