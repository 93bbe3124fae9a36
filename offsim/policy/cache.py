"""What an expert cache decides, and what it is asked.

A cache is asked once for the set of distinct experts of a layer and step. A new one is a subclass
in a file of its own and a line in `offsim.policy.registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

FREE = -1
"""Stands for a victim where a free slot was taken."""
STAGED = -2
"""Stands for a victim where the expert passes through and is not kept."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one lookup; a run's list of them is its decision log.

    Attributes:
        layer: index of the MoE layer.
        hits: experts that are resident, in router order.
        misses: experts to load, in router order.
        victims: for each miss the expert whose place it takes, or FREE, or STAGED.
    """

    layer: int
    hits: tuple[int, ...]
    misses: tuple[int, ...]
    victims: tuple[int, ...]


class ExpertCache(ABC):
    """Decides which experts of a layer stay in the device's slots."""

    name: ClassVar[str]

    @abstractmethod
    def lookup(self, layer: int, accesses: Sequence[int]) -> Decision:
        """Ask for the experts of one layer and step, once.

        Args:
            layer: index of the MoE layer.
            accesses: ids in router order (by token, then by slot), repeats included: a repeat
                promotes and is not counted.

        Returns:
            The decision, already taken: the misses count as resident from now on.
        """
