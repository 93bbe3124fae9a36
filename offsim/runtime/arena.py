"""The device's slots, and which expert is in which."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from offsim.model.experts import ExpertShape, ExpertWeights
from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.runtime.devices import CPU, Device, Kept
from offsim.runtime.waiting import Job


class Slots(Protocol):
    """Where the device has experts, and where it computes with them."""

    def weights(self, layer: int, expert: int) -> ExpertWeights:
        """The weights of an expert that is ready to compute with."""

    def place(self, decision: Decision) -> list[torch.Tensor]:
        """Give each miss that is loaded its slot [values] float32, after who left for it."""

    def place_ahead(self, decision: Decision) -> list[torch.Tensor]:
        """The same for each prefetched expert; those of the decision's layer must have run."""

    def again(self, decision: Decision) -> Mapping[int, tuple[Kept, torch.Tensor]]:
        """The hits that have to be decoded for this use: their blobs, and a slot for each."""

    def keep(self, job: Job) -> None:
        """A load is on its way that brings what is to be kept."""

    def used(self, layer: int, experts: Sequence[int]) -> None:
        """The experts of a layer have run, but for those that the host computed."""


class Arena:
    """The device's slots, and a staging area for what is not kept.

    Args:
        shape: of the experts.
        slots: experts that all layers together keep.
        staged: the most experts that one layer and step asks for; None: all of a layer.
        device: whose memory it is.
    """

    def __init__(
        self, shape: ExpertShape, slots: int, staged: int | None = None, device: Device = CPU
    ) -> None:
        kept = min(slots, shape.layers * shape.experts)
        places = kept + (shape.experts if staged is None else staged)
        self.memory = device.slots(places, shape.values)
        self._views = [ExpertWeights.over(slot, shape) for slot in self.memory]
        self._staging = kept
        self._free = list(range(kept))[::-1]
        self._place: dict[Key, int] = {}

    @staticmethod
    def bytes_of(shape: ExpertShape, slots: int, staged: int) -> int:
        """Bytes of an arena of this size."""
        places = min(slots, shape.layers * shape.experts) + staged
        return places * shape.values * torch.float32.itemsize

    def weights(self, layer: int, expert: int) -> ExpertWeights:
        """The weights of an expert that has a place."""
        return self._views[self._place[layer, expert]]

    def place(self, decision: Decision) -> list[torch.Tensor]:
        """Give each miss that is loaded its slot [values] float32, after who left for it."""
        slots = []
        staged = self._staging
        for expert, left in zip(decision.misses, decision.evicted, strict=True):
            key = (decision.layer, expert)
            if expert in decision.on_host:
                continue
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

    def again(self, decision: Decision) -> Mapping[int, tuple[Kept, torch.Tensor]]:
        """The hits that have to be decoded for this use: none."""
        return {}

    def keep(self, job: Job) -> None:
        """What a load brings is kept in its slot."""

    def used(self, layer: int, experts: Sequence[int]) -> None:
        """The experts of a layer have run, and keep their slots."""

    def _kept(self, key: Key, left: Sequence[Key]) -> torch.Tensor:
        self._free += [self._place.pop(gone) for gone in left]
        self._place[key] = self._free.pop()
        return self.memory[self._place[key]]
