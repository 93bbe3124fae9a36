"""Least recently used, one pool of slots a layer."""

from collections.abc import Sequence

from offsim.policy.cache import FREE, STAGED, Decision, ExpertCache


class LruPerLayer(ExpertCache):
    """Each layer keeps its most recently used experts.

    Args:
        layers: MoE layers.
        slots: experts that a layer can keep; 0 keeps none.
    """

    name = "lru"

    def __init__(self, layers: int, slots: int) -> None:
        self.slots = slots
        self._recency: list[dict[int, None]] = [{} for _ in range(layers)]  # oldest first

    def lookup(self, layer: int, accesses: Sequence[int]) -> Decision:
        """Evict the oldest expert that is not of this step; what finds no place is staged."""
        kept = self._recency[layer]
        wanted = dict.fromkeys(accesses)
        hits = tuple(expert for expert in wanted if expert in kept)
        misses = tuple(expert for expert in wanted if expert not in kept)
        evictable = iter([expert for expert in kept if expert not in wanted])
        free = self.slots - len(kept)
        victims = []
        for expert in misses:
            if free > 0:
                free -= 1
                victims.append(FREE)
            else:
                victims.append(next(evictable, STAGED))
            if victims[-1] != STAGED:
                kept.pop(victims[-1], None)
                kept[expert] = None
        for expert in accesses:
            if expert in kept:
                del kept[expert]
                kept[expert] = None
        return Decision(layer, hits, misses, tuple(victims))
