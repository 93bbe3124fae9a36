"""Tables of two bounds that are as large as one bound for all: where a tight bound pays.

Some matrices have a bound that is tighter than the one for all, by half a bit, and the others the
looser one at which all blobs together are as large as before.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.optimize import brentq
from transformers import PreTrainedModel

from offsim.accuracy.scopes import Mask, Places, Scope, ScopeText, Usage
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.codec.expert import encode_expert
from offsim.errors import InputError
from offsim.model.experts import expert_modules, matrices_of, shape_of
from offsim.policy.bounds import Strict
from offsim.study.paper.sizes import LOG2_ALPHAS, LOG2_STEP

VERSION = 1
CODEC = "cuszp"
ALPHAS = (0.1, 0.3, 0.5, 0.8)
"""Bounds for all that the tables are held against, shares of mean|w|."""
TIGHTER = math.sqrt(0.5)
"""Of the bound for all: half a bit a weight more."""
SAME_SIZE = 0.02
"""Relative difference of sizes that are equal."""
UNIFORM = "one bound"
"""Name of the bound for all among the tables."""


def tight_scopes(experts: int) -> Mapping[str, str]:
    """The tables by name, and where each has the tight bound.

    Args:
        experts: of each layer; the hot ones are the more used half.
    """
    half = f"top{experts // 2}:all"
    return {
        "hot tight, cold loose": half,
        "cold tight, hot loose": f"!{half}",
        "gate and up tight, down loose": "matrix:gate,up",
        "down tight, gate and up loose": "matrix:down",
    }


class UnevenTable(Strict):
    """A table of two bounds.

    Attributes:
        name: of it, as in `tight_scopes`.
        scope: where the bound is tight.
        alpha: the bound for all whose size it has, a share of mean|w| of each expert.
        tight: the bound there, likewise.
        loose: the bound elsewhere, likewise.
        bytes: payload bytes of all blobs, MEASURED.
        uniform_bytes: those with the bound for all, MEASURED.
    """

    name: str
    scope: ScopeText
    alpha: float = Field(gt=0)
    tight: float = Field(gt=0)
    loose: float = Field(gt=0)
    bytes: int = Field(ge=1)
    uniform_bytes: int = Field(ge=1)


class Uneven(Strict):
    """Tables of two bounds for one model.

    Attributes:
        model: digest of the model.
        codec: whose blobs were measured.
        weights: of all experts together.
        tables: one a name and alpha.
    """

    format: Literal["offsim-paper-uneven"] = "offsim-paper-uneven"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    label: Literal["MEASURED"] = "MEASURED"
    model: str
    codec: str
    weights: int = Field(ge=1)
    tables: tuple[UnevenTable, ...]

    def bits(self, size: int) -> float:
        """Bits a weight."""
        return 8 * size / self.weights


def uneven_of(
    model: PreTrainedModel,
    digest: str,
    usage: Usage,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Uneven:
    """Find the loose bound of every table.

    Args:
        model: whose experts are compressed, in bf16.
        digest: of the model.
        usage: activations of each expert, [layers, experts] int64, which say what is hot.
        progress: for a display.

    Raises:
        InputError: no loose bound between 2^-9 and 2^2 of mean|w| gives the size.
    """
    shape = shape_of(model)
    places = Places(shape.layers, shape.experts, usage)
    scopes = tight_scopes(shape.experts)
    tables = []
    for number, alpha in enumerate(ALPHAS):
        uniform = table_bytes(model, np.full((shape.layers, shape.experts, 3), alpha))
        for at, (name, text) in enumerate(scopes.items()):
            done = (number + at / len(scopes)) / len(ALPHAS)
            progress(f"{name} at the size of {alpha:.0%} of mean|w|", done)
            scope = Scope(text)
            tight = float(f"{alpha * TIGHTER:.9g}")
            loose, size = _met(model, scope.mask(places), tight, uniform, name)
            tables.append(
                UnevenTable(
                    name=name,
                    scope=scope,
                    alpha=alpha,
                    tight=tight,
                    loose=loose,
                    bytes=size,
                    uniform_bytes=uniform,
                )
            )
    weights = shape.layers * shape.experts * shape.values
    return Uneven(model=digest, codec=CODEC, weights=weights, tables=tuple(tables))


def table_bytes(model: PreTrainedModel, alphas: npt.NDArray[np.float64]) -> int:
    """Payload bytes of all experts in bf16 under a table of bounds.

    Args:
        model: whose experts are compressed.
        alphas: of every matrix, [layers, experts, 3] float64, shares of mean|w| of its expert.
    """
    codec = codec_named(CODEC)
    return sum(
        encode_expert(
            [matrix.bfloat16() for matrix in matrices_of(module, expert)],
            codec,
            [Bound(alpha, "mean-abs") for alpha in alphas[layer, expert].tolist()],
        ).nbytes
        for layer, module in enumerate(expert_modules(model))
        for expert in range(alphas.shape[1])
    )


def _met(
    model: PreTrainedModel, tight_at: Mask, tight: float, wanted: int, name: str
) -> tuple[float, int]:
    """The loose bound at which a table has the size that is wanted, and its size."""
    found: dict[float, int] = {}

    def too_large(log2_alpha: float) -> float:
        found[log2_alpha] = table_bytes(model, np.where(tight_at, tight, 2.0**log2_alpha))
        return math.log2(found[log2_alpha] / wanted)

    try:
        brentq(too_large, *LOG2_ALPHAS, xtol=LOG2_STEP)
    except ValueError as error:
        raise InputError(f"{name}: no loose bound makes it as large as one bound") from error
    nearest = min(found, key=lambda one: abs(math.log2(found[one] / wanted)))
    loose = float(f"{2.0**nearest:.9g}")  # short in a file; too near to change a blob by much
    size = table_bytes(model, np.where(tight_at, tight, loose))
    if abs(size / wanted - 1) > SAME_SIZE:
        raise InputError(f"{name}: no loose bound makes it as large as one bound within 2 %")
    return loose, size
