"""Several additions and subtractions in the head: the hard task."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed


class Chain(Task):
    """`7+18-3+5=` gives `[27]`, with no step written down: three to five terms."""

    name = "chain"
    title = "multi-step"

    def make(self, rng: Random) -> Item:
        total = rng.randrange(20)
        prompt = str(total)
        for _ in range(rng.randint(2, 4)):
            term = rng.randrange(20)
            if term > total or rng.random() < 0.5:
                total, sign = total + term, "+"
            else:
                total, sign = total - term, "-"
            prompt += f"{sign}{term}"
        return boxed(f"{prompt}=", str(total))
