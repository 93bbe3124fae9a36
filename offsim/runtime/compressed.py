"""The device's memory where it keeps blobs: they stay as they came, and are decoded at each use."""

from collections.abc import Mapping, Sequence

import torch

from offsim.model.experts import ExpertShape, ExpertWeights
from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.runtime.devices import CPU, Device, Kept
from offsim.runtime.waiting import Job


class BlobArena:
    """The blobs on the device, and room for the experts that are decoded.

    How many blobs fit is the cache's to say; each is in memory of its own, so that nothing is lost
    to gaps. An expert is decoded into a place that it has until it was used: from its load or from
    the lookup that asks for it, and from the start of its load where it was fetched ahead. There
    are as many places as were ever needed at once.

    Args:
        shape: of the experts.
        staged: the most experts that one layer and step asks for; None: all of a layer.
        device: whose memory it is.
        kept: places to begin with beside those.
    """

    def __init__(
        self, shape: ExpertShape, staged: int | None = None, device: Device = CPU, kept: int = 0
    ) -> None:
        self._shape, self._device = shape, device
        self._kept: dict[Key, Job] = {}  # whose loads brought the blobs
        self._decoded: dict[Key, torch.Tensor] = {}
        places = shape.experts if staged is None else staged
        self._free = list(device.slots(kept + places, shape.values))

    def weights(self, layer: int, expert: int) -> ExpertWeights:
        """The weights of an expert that is decoded."""
        return ExpertWeights.over(self._decoded[layer, expert], self._shape)

    def place(self, decision: Decision) -> list[torch.Tensor]:
        """A place [values] float32 for each miss that is loaded; who left is forgotten."""
        self._forget(decision.evicted)
        loaded = (expert for expert in decision.misses if expert not in decision.on_host)
        return [self._room((decision.layer, expert)) for expert in loaded]

    def place_ahead(self, decision: Decision) -> list[torch.Tensor]:
        """The same for each prefetched expert."""
        self._forget(decision.displaced)
        return [self._room(key) for key in decision.fetched]

    def again(self, decision: Decision) -> Mapping[int, tuple[Kept, torch.Tensor]]:
        """The hits that have to be decoded for this use: their blobs, and a place for each."""
        found = {}
        for expert in decision.hits:
            key = (decision.layer, expert)
            if key not in self._decoded:
                kept = self._kept[key].kept
                assert kept is not None  # it was waited for at its first use
                found[expert] = (kept, self._room(key))
        return found

    def keep(self, job: Job) -> None:
        """Keep the blob that a load brings."""
        self._kept[job.load.layer, job.load.expert] = job

    def used(self, layer: int, experts: Sequence[int]) -> None:
        """The experts of a layer have run: their places are free again."""
        self._free += [self._decoded.pop((layer, expert)) for expert in experts]

    def _room(self, key: Key) -> torch.Tensor:
        if not self._free:
            with torch.inference_mode(mode=False):  # the decoder, which writes, is outside of it
                self._free += self._device.slots(1, self._shape.values)
        self._decoded[key] = self._free.pop()
        return self._decoded[key]

    def _forget(self, left: Sequence[Sequence[Key]]) -> None:
        for keys in left:
            for key in keys:
                self._kept.pop(key, None)
                if key in self._decoded:
                    self._free.append(self._decoded.pop(key))
