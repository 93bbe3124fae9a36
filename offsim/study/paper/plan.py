"""How much the paper study measures, and on which questions."""

from pydantic import Field

from offsim.policy.bounds import Strict
from offsim.testbed.tasks import TASKS

QUESTIONS: dict[str, tuple[str, ...]] = {
    "mixed": tuple(TASKS),
    "chains": ("chain", "long"),
}
"""Tasks of each set of questions. `mixed`, all tasks, stands for GSM8K; `chains`, sums of several
steps, which the model does less well, for MATH."""


class Plan(Strict):
    """How much is measured.

    Attributes:
        mixed: items of each task of the questions `mixed`.
        chains: items of each task of the questions `chains`.
        seeds: of the noise, a cell; codecs have none.
        sequences: of text, on which the divergence is measured.
        length: of each, tokens.
        requests: recorded to see which experts are used most.
        tokens: written for each of them.
    """

    mixed: int = Field(ge=1)
    chains: int = Field(ge=1)
    seeds: int = Field(ge=1)
    sequences: int = Field(ge=1)
    length: int = Field(ge=2)
    requests: int = Field(ge=1)
    tokens: int = Field(ge=1)

    def a_task(self, questions: str) -> int:
        """Items of each task of a set of questions."""
        return {"mixed": self.mixed, "chains": self.chains}[questions]


FULL = Plan(mixed=100, chains=500, seeds=5, sequences=64, length=128, requests=48, tokens=16)
QUICK = Plan(mixed=10, chains=25, seeds=3, sequences=8, length=64, requests=8, tokens=16)
QUICK_PARTS = ("6", "7")
"""What a quick study does where no part is named."""
