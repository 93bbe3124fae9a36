"""A policy: everything that a designer decides."""

from fractions import Fraction
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from offsim.codec.registry import codec_named
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, check_one_place
from offsim.policy.precision import Low
from offsim.policy.transfer import Transfer

HALF = 0.5
"""Share of the slots that hold decoded experts where nothing is said of two tiers."""


class Policy(BaseModel):
    """How experts are stored and kept.

    Attributes:
        codec: name of the codec in which host memory holds the experts.
        bound: absolute error bound in the unit of the weights, in the stored dtype; 0 for `raw`.
        bounds: a bound for each matrix, where they differ, and a codec where that does; `bound` is
            0 then, and not used.
        cache: name of the eviction policy.
        slots: experts that each layer can keep on the device; a global pool has as many in all.
        extra: experts that a global pool can keep beyond those.
        scope: whether each layer has a pool of its own or all share one.
        seed: of a cache, or a prefetcher, that draws.
        transfer: how loads move.
        prefetch: name of the prefetcher; `none` loads only what is missed.
        distance: how many layers ahead it looks.
        prefetch_bytes: that it may issue in a step; None for as many as it likes.
        precision: of `noisy-oracle`: share of what it foresees that is asked for, above 0 to 1.
        recall: of `noisy-oracle`: share of what is asked for that it foresees, 0..1.
        host_bytes: of host memory for blobs, the rest of which are on disk; None for all of them.
        host_tokens: a missing expert that serves at most so many tokens of a lookup is computed on
            the host and does not come in.
        keep: how the device keeps experts: as they are computed with; or compressed and decoded
            at each use, where the bytes of the slots hold as many blobs as fit; or in both tiers.
        decoded_share: of `both`: share of the slots that hold decoded experts, rounded down to
            whole ones, 0..1; the bytes of the others hold blobs.
        low: a coarser blob for misses of low router weight; None where all come alike.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: str = "raw"
    bound: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    bounds: Bounds | None = None
    cache: str = "lru"
    slots: int = Field(default=4, ge=0)
    extra: int = Field(default=0, ge=0)
    scope: Literal["layer", "global"] = "layer"
    seed: int = 0
    transfer: Transfer = Transfer()
    prefetch: str = "none"
    distance: int = Field(default=1, ge=1)
    prefetch_bytes: int | None = Field(default=None, ge=0)
    precision: float = Field(default=1.0, gt=0, le=1)
    recall: float = Field(default=1.0, ge=0, le=1)
    host_bytes: int | None = Field(default=None, ge=0)
    host_tokens: int = Field(default=0, ge=0)
    keep: Literal["decoded", "compressed", "both"] = "decoded"
    decoded_share: float = Field(default=HALF, ge=0, le=1)
    low: Low | None = None

    @model_validator(mode="after")
    def _extra_slots_are_of_one_pool(self) -> Self:
        if self.extra and self.scope == "layer":
            raise ValueError(f"{self.extra} slots beyond those of each layer are of one pool")
        return self

    @model_validator(mode="after")
    def _bounds_are_for_a_codec_that_takes_them(self) -> Self:
        if self.bounds is None:
            return self
        if self.bound:
            raise ValueError(f"bound {self.bound:g} beside a table of bounds; give one of the two")
        try:
            usual = codec_named(self.codec)
            check_one_place(usual, self.bounds)
        except InputError as error:
            raise ValueError(str(error)) from error
        if usual.promise != "bound":
            raise ValueError(f"codec {self.codec} takes no bounds")
        return self

    @model_validator(mode="after")
    def _a_share_is_of_two_tiers(self) -> Self:
        if self.keep != "both" and self.decoded_share != HALF:
            raise ValueError(
                f"decoded_share {self.decoded_share:g} is of experts that are kept in both tiers, "
                f"not {self.keep}"
            )
        return self

    def decoded_slots(self, slots: int) -> int:
        """Of the slots of a pool those that hold decoded experts."""
        if self.keep == "both":
            return int(slots * Fraction(str(self.decoded_share)))  # 0.29 of 100 are 29
        return slots if self.keep == "decoded" else 0

    def uncompressed(self) -> "Policy":
        """The same with raw experts, which the device can only keep as they are computed with."""
        plain = {"codec": "raw", "bound": 0.0, "bounds": None, "low": None}
        return self.model_copy(update={**plain, "keep": "decoded", "decoded_share": HALF})

    @property
    def key(self) -> tuple[str, float]:
        """What decides the bytes of an expert: codec and bound, or a name of codec and table."""
        if self.bounds is not None:
            return f"{self.storage} {self.bounds.digest}", 0.0
        return self.codec, self.bound

    @property
    def blobs(self) -> tuple[str, float]:
        """What decides all blobs that a policy loads: `key`, and the coarser ones beside it."""
        name, bound = self.key
        return (name, bound) if self.low is None else (f"{name} {bound:g}, {self.low}", 0.0)

    @property
    def codecs(self) -> tuple[str, ...]:
        """Its codec, and those that its table of bounds names."""
        return (self.codec,) if self.bounds is None else (self.codec, *self.bounds.codecs)

    @property
    def storage(self) -> str:
        """Codec and bound as one short text: `cuszp 0.03125`, or `cuszp bounds 3 rules`."""
        if self.bounds is not None:
            return f"{'+'.join(self.codecs)} {self.bounds}"
        return f"{self.codec} {self.bound:g}" if self.bound else self.codec

    def pools(self, layers: int) -> list[int]:
        """[pools] experts that each pool can keep: one for all of so many layers, or one each."""
        if self.scope == "layer":
            return [self.slots] * layers
        return [self.slots * layers + self.extra]

    def __str__(self) -> str:
        pool = "" if self.scope == "layer" else ", one pool"
        if self.extra:
            pool += f" with {self.extra} more"
        ahead = "" if self.prefetch == "none" else f", {self._foresight}"
        low = "" if self.low is None else f", {self.low}"
        return f"{self.storage}{low}, {self.cache} {self.slots}{pool}{self._placement}{ahead}"

    @property
    def placed(self) -> bool:
        """Whether experts are on disk, computed on the host or kept as blobs on the device."""
        return self.host_bytes is not None or self.host_tokens > 0 or self.keep != "decoded"

    @property
    def _placement(self) -> str:
        """Where experts are beyond host memory and slots; such as `, 4096 B of host memory`."""
        kept = {
            "compressed": ["kept compressed"],
            "both": [f"{self.decoded_share:g} kept decoded and the rest compressed"],
        }
        parts = kept.get(self.keep, [])
        if self.host_bytes is not None:
            parts.append(f"{self.host_bytes} B of host memory")
        if self.host_tokens:
            tokens = f"{self.host_tokens} token{'' if self.host_tokens == 1 else 's'}"
            parts.append(f"up to {tokens} on the host")
        return "".join(f", {part}" for part in parts)

    @property
    def _foresight(self) -> str:
        """Prefetcher, distance and budget, such as `gate 2 ahead, 4096 B a step`."""
        how = f"{self.prefetch} {self.distance} ahead"
        if self.prefetch == "noisy-oracle":
            how += f" at precision {self.precision:g} and recall {self.recall:g}"
        if self.prefetch_bytes is not None:
            how += f", {self.prefetch_bytes} B a step"
        return how
