"""The device's memory where it keeps some experts decoded, and blobs of some."""

from collections.abc import Sequence

import torch

from offsim.model.experts import ExpertShape
from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.runtime.compressed import BlobArena
from offsim.runtime.devices import CPU, Device


class TieredArena(BlobArena):
    """Blobs, and places for decoded experts that the tier of decoded experts keeps after a use.

    Args:
        shape: of the experts.
        kept: the most decoded experts that stay.
        staged: as for `BlobArena`.
        device: whose memory it is.
    """

    def __init__(
        self,
        shape: ExpertShape,
        kept: int,
        staged: int | None = None,
        device: Device = CPU,
    ) -> None:
        super().__init__(shape, staged, device, kept)
        self._staying: set[Key] = set()

    def place(self, decision: Decision) -> list[torch.Tensor]:
        """A place for each miss that is loaded, after who left the tier of decoded experts."""
        tier = decision.decoded
        assert tier is not None
        for left in tier.evicted:
            self._staying.difference_update(left)
            self._free += [self._decoded.pop(key) for key in left]
        passing = {*tier.staged, *tier.on_host}
        self._staying.update((tier.layer, e) for e in tier.misses if e not in passing)
        return super().place(decision)

    def used(self, layer: int, experts: Sequence[int]) -> None:
        """The experts of a layer have run: the places of those that do not stay are free again."""
        super().used(layer, [e for e in experts if (layer, e) not in self._staying])

    def _forget(self, left: Sequence[Sequence[Key]]) -> None:
        """Their blobs go, and what was decoded of them if it does not stay."""
        for key in (key for keys in left for key in keys):
            self._kept.pop(key, None)
            if key not in self._staying and key in self._decoded:
                self._free.append(self._decoded.pop(key))
