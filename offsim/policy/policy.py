"""A policy: everything that a designer decides."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from offsim.policy.transfer import Transfer


class Policy(BaseModel):
    """How experts are stored and kept.

    Attributes:
        codec: name of the codec in which host memory holds the experts.
        bound: absolute error bound in the unit of the weights, in the stored dtype; 0 for `raw`.
        cache: name of the eviction policy.
        slots: experts that each layer can keep on the device; a global pool has as many in all.
        scope: whether each layer has a pool of its own or all share one.
        seed: of a cache, or a prefetcher, that draws.
        transfer: how loads move.
        prefetch: name of the prefetcher; `none` loads only what is missed.
        distance: how many layers ahead it looks.
        prefetch_bytes: that it may issue in a step; None for as many as it likes.
        precision: of `noisy-oracle`: share of what it foresees that is asked for, above 0 to 1.
        recall: of `noisy-oracle`: share of what is asked for that it foresees, 0..1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: str = "raw"
    bound: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    cache: str = "lru"
    slots: int = Field(default=4, ge=0)
    scope: Literal["layer", "global"] = "layer"
    seed: int = 0
    transfer: Transfer = Transfer()
    prefetch: str = "none"
    distance: int = Field(default=1, ge=1)
    prefetch_bytes: int | None = Field(default=None, ge=0)
    precision: float = Field(default=1.0, gt=0, le=1)
    recall: float = Field(default=1.0, ge=0, le=1)

    @property
    def key(self) -> tuple[str, float]:
        """Codec and bound: what decides the bytes of an expert."""
        return self.codec, self.bound

    @property
    def storage(self) -> str:
        """Codec and bound as one short text, such as `cuszp 0.03125`."""
        return f"{self.codec} {self.bound:g}" if self.bound else self.codec

    def __str__(self) -> str:
        pool = "" if self.scope == "layer" else ", one pool"
        ahead = "" if self.prefetch == "none" else f", {self._foresight}"
        return f"{self.storage}, {self.cache} {self.slots}{pool}{ahead}"

    @property
    def _foresight(self) -> str:
        """Prefetcher, distance and budget, such as `gate 2 ahead, 4096 B a step`."""
        how = f"{self.prefetch} {self.distance} ahead"
        if self.prefetch == "noisy-oracle":
            how += f" at precision {self.precision:g} and recall {self.recall:g}"
        if self.prefetch_bytes is not None:
            how += f", {self.prefetch_bytes} B a step"
        return how
