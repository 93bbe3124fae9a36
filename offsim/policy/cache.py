"""What an expert cache decides, and what it is asked.

A cache is asked once for the set of distinct experts of a layer and step, and between two lookups
it may be asked to fetch experts ahead.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from offsim.policy.evictions import Key


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one lookup; a run's list of them is its decision log.

    Attributes:
        layer: index of the MoE layer.
        hits: experts that are resident, in router order.
        misses: experts to load, in router order.
        evicted: for each miss, who leaves so that it finds room: layer and expert of each. A
            coarse expert that is overwritten leaves for itself.
        staged: those of the misses that find none: they pass through and are not kept.
        fetched: experts that are prefetched once this layer is done, in the order in which they
            are asked for: layer and expert of each.
        displaced: for each of those, who leaves so that it finds room.
        on_host: those of the misses that the host computes: they are not loaded, and not staged.
        from_disk: those of the misses, then of the fetched, whose blobs were not in host memory:
            layer and expert of each.
        coarse: those of the misses that are loaded as the coarser blob, in router order.
        decoded: what the tier of decoded experts decides, where there are two; `evicted`, `staged`
            and `displaced` are of the tier of blobs then. What it misses is decoded for this
            lookup, be it a hit or a miss of both together, unless its prefetch has decoded it.
    """

    layer: int
    hits: tuple[int, ...]
    misses: tuple[int, ...]
    evicted: tuple[tuple[Key, ...], ...] = ()
    staged: tuple[int, ...] = ()
    fetched: tuple[Key, ...] = ()
    displaced: tuple[tuple[Key, ...], ...] = ()
    on_host: tuple[int, ...] = ()
    from_disk: tuple[Key, ...] = ()
    coarse: tuple[int, ...] = ()
    decoded: "Decision | None" = None


class ExpertCache(ABC):
    """Decides which experts stay on the device."""

    @abstractmethod
    def lookup(
        self,
        layer: int,
        accesses: Sequence[int],
        weights: Sequence[float] | None = None,
        outside: Container[int] = (),
    ) -> Decision:
        """Ask for the experts of one layer and step, once.

        Args:
            layer: index of the MoE layer.
            accesses: ids in router order (by token, then by slot), repeats included: a repeat
                promotes and is not counted.
            weights: [accesses] what the router gave each; only some policies look at them.
            outside: experts that do not come in if they are missing: the host computes them.

        Returns:
            The decision, already taken: the misses that are neither staged nor computed on the
            host are resident from now on.
        """

    @abstractmethod
    def fetch(
        self, candidates: Iterable[Key], nbytes: Callable[[Key], int], budget: int
    ) -> tuple[list[Key], list[tuple[Key, ...]], int]:
        """Let experts in before they are asked for, after one lookup and before the next.

        They come in the order of the candidates; those that are resident are passed over, and the
        first that exceeds what is left of the budget ends it. Each is pending until the next
        lookup of its layer and does not leave before it. Candidates do not leave for each other
        either. One that finds no room is passed over, and no one leaves for it.

        Args:
            candidates: in order of preference.
            nbytes: bytes that are issued for an expert; in the cache it may take others.
            budget: bytes that may be issued.

        Returns:
            The experts that came, who left for each, and what is left of the budget.
        """
