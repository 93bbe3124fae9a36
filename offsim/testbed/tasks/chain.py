"""Several additions and subtractions in the head."""

from random import Random

from offsim.testbed.tasks.base import Item, Task, boxed


class Chain(Task):
    """`7+18-3+5=` gives `[27]`, with no step written down: three to five terms."""

    name = "chain"
    title = "multi-step"

    def make(self, rng: Random) -> Item:
        return boxed(*summed(rng))


def summed(rng: Random, terms: int | None = None) -> tuple[str, str]:
    """A sum of numbers below 20 that never falls below 0, as a prompt, and its result.

    Args:
        rng: what is drawn from.
        terms: how many; three to five where None.
    """
    total = rng.randrange(20)
    prompt = str(total)
    for _ in range(rng.randint(2, 4) if terms is None else terms - 1):
        term = rng.randrange(20)
        if term > total or rng.random() < 0.5:
            total, sign = total + term, "+"
        else:
            total, sign = total - term, "-"
        prompt += f"{sign}{term}"
    return f"{prompt}=", str(total)
