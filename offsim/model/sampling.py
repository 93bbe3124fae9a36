"""How the next token is chosen: the likeliest one, or one that is drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from offsim.errors import InputError

Choose = Callable[[torch.Tensor], int]
"""Gives the next token for its logits [vocabulary]."""


class Chooser(Protocol):
    """Whoever chooses the tokens of several requests."""

    def of(self, request: int) -> Choose:
        """Chooses the tokens of one of them, by its number."""


def likeliest(logits: torch.Tensor) -> int:
    """The token with the largest logit; the first of several."""
    return int(logits.argmax())


@dataclass(frozen=True, slots=True)
class Sampling:
    """Tokens that are drawn, the same ones for the same logits and seed.

    Top-p as of Holtzman et al., "The Curious Case of Neural Text Degeneration" (2020): the fewest
    likeliest tokens whose probabilities come to p or more.

    Attributes:
        temperature: by which logits are divided, above 0; 1 leaves probabilities as they are.
        top_p: share of the probability that is drawn from, above 0 to 1, after the temperature.
        seed: of the draws, 0 or more.

    Raises:
        InputError: a number that cannot be.
    """

    temperature: float
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(
                f"a temperature is a number above 0, not {self.temperature:g}; leave it out for "
                "greedy answers"
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top-p is a share above 0 to 1, not {self.top_p:g}")
        if self.seed < 0:
            raise InputError(f"a seed of draws is 0 or more, not {self.seed}")

    def __str__(self) -> str:
        nucleus = "" if self.top_p == 1 else f", top-p {self.top_p:g}"
        return f"drawn at temperature {self.temperature:g}{nucleus}, seed {self.seed}"

    def of(self, request: int) -> Choose:
        """Draws the tokens of one request, whatever others have drawn.

        Args:
            request: number of it; each has random numbers of its own.
        """
        generator = np.random.default_rng((self.seed, request))
        return lambda logits: self._drawn(logits, generator.random())

    def _drawn(self, logits: torch.Tensor, share: float) -> int:
        """The token at a share of the probability, 0..1, the likeliest tokens first."""
        values = logits.double().cpu().numpy()
        order = np.argsort(-values, kind="stable")
        with np.errstate(over="ignore"):  # of a temperature next to 0; then only the best is left
            weights = np.exp((values[order] - values[order[0]]) / self.temperature)
        sums = np.cumsum(weights)
        kept = sums[: int(np.searchsorted(sums, self.top_p * sums[-1])) + 1]
        place = int(np.searchsorted(kept, share * kept[-1], side="right"))
        return int(order[min(place, len(kept) - 1)])
