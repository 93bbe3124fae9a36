"""Generated experts of any shape: what a recorded trace drives where there is no model to run.

The weights are Gaussian: honest for the size of a blob and the speed of a codec, of no meaning for
accuracy. There is no language model around them: between the experts of two layers stands a
`dense` part, a chain of square matrix products, so that there is compute as between the experts of
a real model.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from offsim.codec.blob import DTYPE_NAMES, DTYPES
from offsim.errors import InputError
from offsim.model.experts import ExpertShape
from offsim.model.hook import Handler

SIGMA = 0.02
"""Standard deviation of the weights where none is given: about that of published experts."""
PROJECTIONS = 4
"""Products of the dense part where nothing is said: query, key, value and output."""
BEYOND_CACHE = 4
"""Distinct weights fill the last-level cache so many times, or are all there are."""
FEWEST = 8
"""Distinct experts where a few already exceed the cache, so that a token's experts differ."""
USUAL_CACHE = 32 << 20
"""Bytes of the last-level cache where the system does not tell."""
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class GeneratedModel:
    """Experts and dense parts drawn from a seed.

    All experts of one identity have the same weights: expert e of layer l is one of `distinct`, by
    a hash of the seed and of both. So memory holds `distinct` blobs a codec and bound, whatever
    the number of experts, while together they are larger than the caches of the CPU, which so do
    not serve an expert that was loaded a while ago.

    Attributes:
        shape: of the experts.
        distinct: experts with weights of their own; as many as there are: no two are alike.
        dtype: that the experts are stored in.
        seed: of all weights.
        sigma: standard deviation of the weights of experts.
        projections: hidden x hidden products between the experts of two layers.

    Raises:
        InputError: a size that is not positive, or a dtype that no blob has.
    """

    shape: ExpertShape
    distinct: int
    dtype: torch.dtype = torch.bfloat16
    seed: int = 0
    sigma: float = SIGMA
    projections: int = PROJECTIONS

    def __post_init__(self) -> None:
        sizes = {
            "layers": self.shape.layers,
            "experts a layer": self.shape.experts,
            "hidden size": self.shape.hidden,
            "intermediate size": self.shape.width,
            "number of distinct experts": self.distinct,
        }
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"generated experts: the {name} is at least 1, not {size}")
        if self.projections < 0:
            raise InputError(
                f"the dense part has 0 or more matrix products, not {self.projections}"
            )
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise InputError(f"sigma of generated weights is a positive number, not {self.sigma:g}")
        if self.dtype not in DTYPE_NAMES or self.dtype.itemsize != self.shape.dtype_bytes:
            raise InputError(
                f"experts of {self.shape.dtype_bytes} B a weight cannot be {self.dtype}"
            )

    def __str__(self) -> str:
        shape = self.shape
        return (
            f"{shape.layers} layers of {shape.experts} generated experts "
            f"{shape.hidden}x{shape.width} {DTYPE_NAMES[self.dtype]}, "
            f"{min(self.distinct, shape.layers * shape.experts)} distinct, "
            f"sigma {self.sigma:g}, seed {self.seed}, {self.projections} dense products"
        )

    def identity(self, layer: int, expert: int) -> int:
        """Which of the distinct experts stands at a place, 0..distinct - 1."""
        number = layer * self.shape.experts + expert
        if self.distinct >= self.shape.layers * self.shape.experts:
            return number
        digest = hashlib.sha256(f"{self.seed}/{number}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % self.distinct

    def matrices(self, layer: int, expert: int) -> Sequence[torch.Tensor]:
        """Gate [width, hidden], up [width, hidden] and down [hidden, width], drawn anew."""
        shape = self.shape
        drawn = self._drawn(1 + self.identity(layer, expert))
        gate_up, down = (2, shape.width, shape.hidden), (shape.hidden, shape.width)
        gate, up = (torch.randn(gate_up, generator=drawn) * self.sigma).to(self.dtype)
        return gate, up, (torch.randn(down, generator=drawn) * self.sigma).to(self.dtype)

    @property
    def dense_copies(self) -> int:
        """Layers whose dense parts have weights of their own; the others repeat them in turn."""
        return beyond_cache(self.dense_bytes, self.shape.layers) if self.projections else 0

    @property
    def dense_bytes(self) -> int:
        """Of the dense part of one layer, float32."""
        return 4 * self.projections * self.shape.hidden**2

    def forward(
        self,
        hidden: torch.Tensor,
        routed: Sequence[tuple[torch.Tensor, torch.Tensor]],
        handler: Handler,
    ) -> torch.Tensor:
        """One step: layer by layer the dense part and then the experts, each behind a norm.

        Args:
            hidden: [tokens, hidden] float32.
            routed: for each layer ids [tokens, top_k] int64 and weights [tokens, top_k] float32.
            handler: runs the experts.

        Returns:
            Hidden states [tokens, hidden] float32.
        """
        for layer, (ids, weights) in enumerate(routed):
            hidden = hidden + self._dense_part(layer, _normed(hidden))
            hidden = hidden + handler(layer, _normed(hidden), ids, weights)
        return hidden

    def start(self, tokens: int) -> torch.Tensor:
        """Hidden states [tokens, hidden] float32 that a step begins with."""
        return torch.randn(tokens, self.shape.hidden, generator=self._drawn(0))

    def _dense_part(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        if not self.projections:
            return hidden
        dense = self._dense_there.get(hidden.device.type)
        if dense is None:
            there = [weights.to(hidden.device) for weights in self._dense]
            dense = self._dense_there[hidden.device.type] = there
        for weights in dense[layer % len(dense)]:
            hidden = torch.nn.functional.linear(hidden, weights)
        return hidden

    @cached_property
    def _dense_there(self) -> dict[str, list[torch.Tensor]]:
        """`_dense` by the kind of device that has computed with it."""
        return {}

    @cached_property
    def _dense(self) -> list[torch.Tensor]:
        """For each layer that has its own, [projections, hidden, hidden] float32."""
        hidden, drawn = self.shape.hidden, self._drawn(-1)
        size = (self.projections, hidden, hidden)
        scale = hidden**-0.5  # keeps the size of what passes
        return [torch.randn(size, generator=drawn) * scale for _ in range(self.dense_copies)]

    def _drawn(self, stream: int) -> torch.Generator:
        """A generator of its own for each stream, so that no weights depend on what was drawn."""
        digest = hashlib.sha256(f"{self.seed}/{stream}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def _normed(hidden: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(hidden, hidden.shape[-1:])


def generated_model(
    shape: tuple[int, int, int, int],
    dtype: str = "bf16",
    distinct: int | None = None,
    seed: int = 0,
    sigma: float = SIGMA,
    projections: int = PROJECTIONS,
) -> GeneratedModel:
    """A generated model of this shape.

    Args:
        shape: layers, experts a layer, hidden size and intermediate size.
        dtype: that experts are stored in: bf16, fp16 or f32.
        distinct: experts with weights of their own; None for as many as exceed the last-level
            cache of this machine four times, but at least eight, or all where there are fewer.
        seed: of all weights.
        sigma: standard deviation of the weights of experts.
        projections: hidden x hidden products between the experts of two layers.

    Raises:
        InputError: no such dtype, or as for `GeneratedModel`.
    """
    if dtype not in DTYPES:
        raise InputError(f"experts are stored as {', '.join(DTYPES)}, not {dtype}")
    layout = ExpertShape(*shape, dtype_bytes=DTYPES[dtype].itemsize)
    if distinct is None:
        places = layout.layers * layout.experts
        distinct = min(places, max(FEWEST, beyond_cache(layout.bytes, places)))
    return GeneratedModel(layout, distinct, DTYPES[dtype], seed, sigma, projections)


def beyond_cache(nbytes: int, most: int) -> int:
    """How many things of so many bytes do not fit in the last-level cache by far; at most all."""
    return min(most, -(-BEYOND_CACHE * last_level_cache() // max(1, nbytes)))


def last_level_cache(folder: Path = CACHES) -> int:
    """Bytes of the largest cache of the CPU, or USUAL_CACHE where the system does not tell."""
    sizes = []
    for file in sorted(folder.glob("index*/size")):
        text = file.read_text(encoding="utf-8").strip()
        if text[:-1].isdigit() and text[-1:] in "KM":
            sizes.append(int(text[:-1]) << {"K": 10, "M": 20}[text[-1]])
    return max(sizes, default=USUAL_CACHE)
