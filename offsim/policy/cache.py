"""What an expert cache decides, and what it is asked.

A cache is asked once for the set of distinct experts of a layer and step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from offsim.policy.evictions import Key


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one lookup; a run's list of them is its decision log.

    Attributes:
        layer: index of the MoE layer.
        hits: experts that are resident, in router order.
        misses: experts to load, in router order.
        evicted: for each miss, who leaves so that it finds room: layer and expert of each.
        staged: those of the misses that find none: they pass through and are not kept.
    """

    layer: int
    hits: tuple[int, ...]
    misses: tuple[int, ...]
    evicted: tuple[tuple[Key, ...], ...] = ()
    staged: tuple[int, ...] = ()


class ExpertCache(ABC):
    """Decides which experts stay on the device."""

    @abstractmethod
    def lookup(
        self, layer: int, accesses: Sequence[int], weights: Sequence[float] | None = None
    ) -> Decision:
        """Ask for the experts of one layer and step, once.

        Args:
            layer: index of the MoE layer.
            accesses: ids in router order (by token, then by slot), repeats included: a repeat
                promotes and is not counted.
            weights: [accesses] what the router gave each; only some policies look at them.

        Returns:
            The decision, already taken: the misses that are not staged are resident from now on.
        """
