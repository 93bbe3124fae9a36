"""A policy: everything that a designer decides."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Policy(BaseModel):
    """How experts are stored and kept.

    Attributes:
        codec: name of the codec in which host memory holds the experts.
        bound: absolute error bound in the unit of the weights, in the stored dtype; 0 for `raw`.
        cache: name of the eviction policy.
        slots: experts that each layer can keep on the device; a global pool has as many in all.
        scope: whether each layer has a pool of its own or all share one.
        seed: of a cache that draws.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: str = "raw"
    bound: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    cache: str = "lru"
    slots: int = Field(default=4, ge=0)
    scope: Literal["layer", "global"] = "layer"
    seed: int = 0

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
        return f"{self.storage}, {self.cache} {self.slots}{pool}"
