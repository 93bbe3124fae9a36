"""What was sampled round by round, so that some of the rounds can stand for all."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from offsim.policy.policy import Policy
from offsim.runtime.run import Run

Sample = TypeVar("Sample")
Sampler = TypeVar("Sampler")


class Rounds(list[Sample]):
    """What each round gave, in order."""

    def drawn(self, numbers: Sequence[int]) -> "Rounds[Sample]":
        """What some rounds gave, each as often as it is named; nothing where no round gave any."""
        return Rounds(self[number] for number in numbers if self)


def drawn(sampler: Sampler, numbers: Sequence[int]) -> Sampler:
    """A copy of a sampler that knows these rounds alone, each as often as it is named.

    Args:
        sampler: whose attributes are `Rounds`, lists and dicts of them, or the same in all rounds.
        numbers: of rounds, from 0.
    """
    part = copy(sampler)
    for name, value in vars(sampler).items():
        setattr(part, name, _drawn(value, numbers))
    return part


def _drawn(value: Any, numbers: Sequence[int]) -> Any:
    if isinstance(value, Rounds):
        return value.drawn(numbers)
    if isinstance(value, list):
        return [_drawn(one, numbers) for one in value]
    if isinstance(value, dict):
        return {key: _drawn(one, numbers) for key, one in value.items()}
    return value


@dataclass(frozen=True)
class Inner:
    """A policy that is run in each round, whole.

    Attributes:
        policy: which.
        link_bytes_per_s: pace of the link; None for plain copies.
        runs: one a round.
    """

    policy: Policy
    link_bytes_per_s: float | None
    runs: Rounds[Run]

    def __str__(self) -> str:
        pace = self.link_bytes_per_s
        link = "plain link" if pace is None else f"{pace / 1e6:.0f} MB/s"
        return f"{self.policy}, {link}"


@dataclass
class InnerRuns:
    """The policies that are run in each round, in the order in which they were run first."""

    known: dict[tuple[str, float | None], Inner] = field(default_factory=dict)

    def note(self, policy: Policy, link_bytes_per_s: float | None, run: Run) -> None:
        """One was run in a new round."""
        new = Inner(policy, link_bytes_per_s, Rounds())
        self.known.setdefault((str(policy), link_bytes_per_s), new).runs.append(run)

    def __iter__(self) -> Iterator[Inner]:
        return iter(self.known.values())
