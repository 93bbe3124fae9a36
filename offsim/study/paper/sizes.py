"""What codecs make of the experts of a model, and the bounds at which blobs are equally large.

Bytes are payload bytes of real blobs, all matrices of all experts; a bound is the same share alpha
of mean|w| in every expert. Those of `uniform` alone are no blob's: they are the entropy that an
ideal code would come to, ESTIMATED.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator
from scipy.optimize import brentq
from transformers import PreTrainedModel

from offsim.calibration.curve import entropy
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.codec.expert import encode_expert
from offsim.errors import InputError
from offsim.model.experts import expert_modules, matrices_of, shape_of
from offsim.policy.bounds import Strict

VERSION = 1
SIZED = ("cuszp", "sz3")
"""Codecs with a bound; the first sets the size of the others at each bound of the paper."""
QUANTISERS = ("rtn-int8", "rtn-int4")
"""Codecs without one, whose sizes are met too."""
IDEAL = "uniform"
"""Noise that stands for an ideal code, whose size is computed."""
LOG2_ALPHAS = (-9.0, 2.0)
"""Between which a bound is sought."""
LOG2_STEP = 1e-3
"""How exactly: about a thousandth of a bit a weight."""


class SizePoint(Strict):
    """A codec at one bound.

    Attributes:
        source: name of the codec, or `uniform`: an ideal code under this bound, whose bytes are
            the entropy of a uniform quantiser.
        alpha: the bound, a share of mean|w| of each expert; None for a codec that takes none.
        bytes: of all blobs.
        label: MEASURED of blobs, ESTIMATED of the ideal code.
        sized_to: `SOURCE ALPHA` of the point whose bytes this one meets; its own where it sets
            them, empty where it is part of the comparison at equal bounds alone.
    """

    source: str
    alpha: float | None
    bytes: float = Field(ge=0)
    label: Literal["MEASURED", "ESTIMATED"] = "MEASURED"
    sized_to: str = ""

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, given: Any) -> Any:
        """Files that are older than the label have none."""
        if isinstance(given, dict) and "label" not in given:
            computed = given.get("source") == IDEAL
            return {**given, "label": "ESTIMATED" if computed else "MEASURED"}
        return given

    @property
    def key(self) -> str:
        """What `sized_to` of another point says of this one."""
        return self.source if self.alpha is None else f"{self.source} {self.alpha:g}"


class Sizes(Strict):
    """Sizes of the experts of one model under codecs.

    Attributes:
        model: digest of the model.
        weights: of all experts together.
        points: one a codec and bound.
    """

    format: Literal["offsim-paper-sizes"] = "offsim-paper-sizes"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    model: str
    weights: int = Field(ge=1)
    points: tuple[SizePoint, ...]

    def bits(self, point: SizePoint) -> float:
        """Bits a weight."""
        return 8 * point.bytes / self.weights

    def reference(self, point: SizePoint) -> SizePoint:
        """The point whose size another one meets.

        Raises:
            InputError: there is none of that name.
        """
        for one in self.points:
            if one.key == point.sized_to and one.sized_to == point.sized_to:
                return one
        raise InputError(f"no codec is sized {point.sized_to!r}; remove sizes.json and run again")

    def point(self, source: str, alpha: float | None) -> SizePoint | None:
        """What was measured of a source at a bound, if it was."""
        return next((p for p in self.points if (p.source, p.alpha) == (source, alpha)), None)


def sizes_of(
    model: PreTrainedModel,
    digest: str,
    alphas: tuple[float, ...],
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Sizes:
    """Measure the codecs at the paper's bounds, and find the bounds of equal sizes.

    Args:
        model: whose experts are compressed, in bf16.
        digest: of the model.
        alphas: bounds of the comparison, shares of mean|w|.
        progress: for a display.

    Raises:
        InputError: no bound between 2^-9 and 2^2 of mean|w| gives a size that is to be met.
    """
    shape = shape_of(model)
    points: list[SizePoint] = []
    setter, *others = SIZED
    targets: list[SizePoint] = []
    for number, alpha in enumerate(alphas):
        progress(f"sizes of the codecs at {alpha:.0%} of mean|w|", number / (2 * len(alphas)))
        ideal = _ideal_bytes(model, alpha)
        points.append(SizePoint(source=IDEAL, alpha=alpha, bytes=ideal, label="ESTIMATED"))
        first = _blobs(model, setter, alpha)
        targets.append(first.model_copy(update={"sized_to": first.key}))
        points += [_blobs(model, name, alpha) for name in others]
    for name in QUANTISERS:
        one = _blobs(model, name, None)
        targets.append(one.model_copy(update={"sized_to": one.key}))
    for number, target in enumerate(targets):
        progress(f"bounds at the size of {target.key}", 0.5 + number / (2 * len(targets)))
        points.append(target)
        for name in SIZED if target.alpha is None else others:
            points.append(_met(model, name, target))
    weights = shape.layers * shape.experts * shape.values
    return Sizes(model=digest, weights=weights, points=tuple(points))


def blob_bytes(model: PreTrainedModel, codec: str, alpha: float | None) -> int:
    """Payload bytes of all experts in bf16.

    Args:
        model: whose experts are compressed.
        codec: its name.
        alpha: the bound, a share of mean|w| of each expert; None for a codec that takes none.
    """
    named = codec_named(codec)
    bounds = 0.0 if alpha is None else [Bound(alpha, "mean-abs")] * 3
    return sum(
        encode_expert([m.bfloat16() for m in matrices_of(module, expert)], named, bounds).nbytes
        for module in expert_modules(model)
        for expert in range(len(module.down_proj))
    )


def _blobs(model: PreTrainedModel, codec: str, alpha: float | None) -> SizePoint:
    """The size of real blobs."""
    size = blob_bytes(model, codec, alpha)
    return SizePoint(source=codec, alpha=alpha, bytes=size)


def _ideal_bytes(model: PreTrainedModel, alpha: float) -> float:
    """Entropy of all matrices, each quantised uniformly with steps of twice its bound, in bytes."""
    total = 0.0
    for module in expert_modules(model):
        for expert in range(len(module.down_proj)):
            matrices = matrices_of(module, expert)
            bound = Bound(alpha, "mean-abs").absolute(matrices)
            total += sum(entropy(matrix, bound) * matrix.numel() for matrix in matrices)
    return total / 8


def _met(model: PreTrainedModel, codec: str, target: SizePoint) -> SizePoint:
    """A codec at the bound at which its blobs are as large as those of another one."""
    found: dict[float, int] = {}

    def too_large(log2_alpha: float) -> float:
        found[log2_alpha] = blob_bytes(model, codec, 2.0**log2_alpha)
        return math.log2(found[log2_alpha] / target.bytes)

    try:
        brentq(too_large, *LOG2_ALPHAS, xtol=LOG2_STEP)
    except ValueError as error:
        raise InputError(f"{codec} has no bound at which it is as large as {target.key}") from error
    nearest = min(found, key=lambda one: abs(math.log2(found[one] / target.bytes)))
    alpha = float(f"{2.0**nearest:.9g}")  # short in a file; too near to change a blob by much
    return _blobs(model, codec, alpha).model_copy(update={"sized_to": target.key})
