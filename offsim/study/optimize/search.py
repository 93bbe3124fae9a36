"""Searches the choice of bounds that a simulator finds fastest within a budget of accuracy.

What a bound is worth depends on the others: bytes change what overlaps what, and with caches that
count bytes even what hits. So the simulator is asked what each single change is worth, an exact
knapsack says which of them to make together, and the simulator judges that: where they are worth
less together than one by one, fewer are made. Where all choices can be simulated, they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from offsim.errors import InputError
from offsim.study.optimize.knapsack import Choice, Floats, cheapest, summed

ENUMERATED = 4096
"""Choices up to which all are simulated: a few seconds."""
ROUNDING = 1e-9
"""Share of the budget by which sums in another order may exceed it."""
GAIN = 1e-6
"""Share of the latency below which a choice counts as no faster."""
Progress = Callable[[str, float], None]


@dataclass
class Problem:
    """What is to be chosen.

    Attributes:
        losses: [places, rungs] what each place loses at each rung, nats a token.
        budget: that these may sum to, nats a token.
        latency: what a simulator says of a choice, s.
        simulated: all choices that it was asked about.
    """

    losses: Floats
    budget: float
    latency: Callable[[Choice], float]
    simulated: dict[bytes, float] = field(default_factory=dict)

    def seconds(self, choice: Choice) -> float:
        """What a choice takes; the simulator is asked once."""
        key = choice.astype(np.int32).tobytes()
        if key not in self.simulated:
            self.simulated[key] = self.latency(choice)
        return self.simulated[key]

    def allowed(self, choice: Choice) -> bool:
        """Whether a choice is within the budget."""
        return summed(self.losses, choice) <= self.budget * (1 + ROUNDING)


@dataclass(frozen=True)
class Found:
    """The fastest choice that was found.

    Attributes:
        choice: [places] rung of each.
        latency_s: SIMULATED, s.
        loss: that its losses sum to, nats a token.
        promised_s: no choice is faster: than any that was simulated, where all were; else by the
            knapsack over what single changes are worth, to which changes together do not keep.
        exact: whether all choices were simulated.
        simulations: how many were.
    """

    choice: Choice
    latency_s: float
    loss: float
    promised_s: float
    exact: bool
    simulations: int

    @property
    def gap(self) -> float:
        """Share of the latency by which a faster choice could be faster, by `promised_s`."""
        return 1 - self.promised_s / self.latency_s


def fastest(problem: Problem, progress: Progress = lambda *_: None) -> Found:
    """The fastest choice within the budget.

    Args:
        problem: what is to be chosen.
        progress: for a display.

    Raises:
        InputError: even where every place loses the least, that is more than the budget.
    """
    places, rungs = problem.losses.shape
    tightest = float(problem.losses.min(axis=1).sum())
    if tightest > problem.budget:
        raise InputError(
            f"the tightest bounds of the ladder lose {tightest:.3g} nats a token together, more "
            f"than the budget of {problem.budget:.3g}; raise it, or calibrate tighter bounds"
        )
    exact = rungs**places <= ENUMERATED
    choice, promised_s = (_enumerated if exact else _climbed)(problem, progress)
    return Found(
        choice=choice,
        latency_s=problem.seconds(choice),
        loss=summed(problem.losses, choice),
        promised_s=promised_s,
        exact=exact,
        simulations=len(problem.simulated),
    )


def uniform(problem: Problem) -> Choice:
    """The same rung everywhere: the fastest within the budget; if none is, what loses least."""
    places, rungs = problem.losses.shape
    within = [one for one in (np.full(places, r) for r in range(rungs)) if problem.allowed(one)]
    if within:
        return min(within, key=problem.seconds)
    least: Choice = problem.losses.argmin(axis=1)
    return least


def _enumerated(problem: Problem, progress: Progress) -> tuple[Choice, float]:
    """The fastest of all choices, which none is faster than."""
    places, rungs = problem.losses.shape
    every = [np.array(one, np.intp) for one in product(range(rungs), repeat=places)]
    allowed = [choice for choice in every if problem.allowed(choice)]
    for done, choice in enumerate(allowed):
        progress(f"simulating {len(allowed)} choices", done / len(allowed))
        problem.seconds(choice)

    def order(choice: Choice) -> tuple[float, float]:
        return problem.seconds(choice), summed(problem.losses, choice)

    best = min(allowed, key=order)
    return best, problem.seconds(best)


def _climbed(problem: Problem, progress: Progress) -> tuple[Choice, float]:
    """A choice from which no knapsack over single changes leads further, and what the last says."""
    choice = uniform(problem)
    while True:
        known = problem.seconds(choice)
        progress(f"{1e3 * known:.4g} ms, looking for less", 0.0)
        worth = _single_changes(problem, choice, progress)
        better, promised = _better(problem, choice, worth)
        if better is None:
            return choice, promised
        choice = better


def _single_changes(problem: Problem, choice: Choice, progress: Progress) -> Floats:
    """[places, rungs] what the latency changes by if one place alone has another rung, s."""
    worth, known = np.zeros(problem.losses.shape), problem.seconds(choice)
    for place, rung in np.ndindex(*worth.shape):
        progress(f"{1e3 * known:.4g} ms, looking for less", place / len(choice))
        changed = choice.copy()
        changed[place] = rung
        worth[place, rung] = problem.seconds(changed) - known
    return worth


def _better(problem: Problem, choice: Choice, worth: Floats) -> tuple[Choice | None, float]:
    """A faster choice, if there is one, and what the knapsack promises without a limit, s."""
    known, changes = problem.seconds(choice), len(choice)
    promised = known
    while changes:
        asked = cheapest(worth, problem.losses, problem.budget, choice, changes)
        if asked is None or not problem.allowed(asked):
            return None, promised
        promise = known + summed(worth, asked)
        promised = min(promised, promise)
        if promise > known * (1 - GAIN):
            return None, promised
        if problem.seconds(asked) < known * (1 - GAIN):
            return asked, promised
        changes = min(changes - 1, int((asked != choice).sum()) // 2)
    return None, promised
