"""The device's slots, and which expert is in which."""

from collections.abc import Sequence

import torch

from offsim.model.experts import ExpertShape, ExpertWeights
from offsim.policy.cache import Decision
from offsim.policy.evictions import Key


class Arena:
    """The device's slots: `slots` a layer, and a staging area for what is not kept.

    Args:
        shape: of the experts.
        slots: experts that each layer keeps; a global pool has as many in all.
        staged: the most experts that one layer and step asks for; None: all of a layer.
    """

    def __init__(self, shape: ExpertShape, slots: int, staged: int | None = None) -> None:
        kept = shape.layers * min(slots, shape.experts)
        places = kept + (shape.experts if staged is None else staged)
        # Written to once, so that no load pays for its memory being given out.
        self.memory = torch.empty(places, shape.values).zero_()
        self._views = [ExpertWeights.over(slot, shape) for slot in self.memory]
        self._staging = kept
        self._free = list(range(kept))[::-1]
        self._place: dict[Key, int] = {}

    @staticmethod
    def bytes_of(shape: ExpertShape, slots: int, staged: int) -> int:
        """Bytes of an arena of this size."""
        places = shape.layers * min(slots, shape.experts) + staged
        return places * shape.values * torch.float32.itemsize

    def weights(self, layer: int, expert: int) -> ExpertWeights:
        """The weights of an expert that has a place."""
        return self._views[self._place[layer, expert]]

    def place(self, decision: Decision) -> list[torch.Tensor]:
        """Give each miss of a decision its slot [values] float32, after who left for it."""
        slots = []
        staged = self._staging
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            key = (decision.layer, expert)
            if expert in decision.staged:
                self._free += [self._place.pop(gone) for gone in left]
                self._place[key], staged = staged, staged + 1
                slots.append(self.memory[self._place[key]])
            else:
                slots.append(self._kept(key, left))
        return slots

    def place_ahead(self, decision: Decision) -> list[torch.Tensor]:
        """The same for each prefetched expert; those of the decision's layer must have run."""
        pairs = zip(decision.fetched, decision.displaced, strict=True)
        return [self._kept(key, left) for key, left in pairs]

    def _kept(self, key: Key, left: Sequence[Key]) -> torch.Tensor:
        self._free += [self._place.pop(gone) for gone in left]
        self._place[key] = self._free.pop()
        return self.memory[self._place[key]]
