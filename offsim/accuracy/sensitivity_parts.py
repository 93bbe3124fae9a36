"""The parts of a sensitivity file: what was measured, and the terms of its model."""

import math
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from offsim.accuracy.scopes import Scope
from offsim.accuracy.statistics import Difference
from offsim.policy.bounds import Bounds, BoundText, Matrix, Strict

FLOOR = 1e-9
"""Divergence below which rounding of float32 logits is all there is, nats a token."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Values = npt.NDArray[np.float64]


class Ranged(Strict):
    """A number with its 95 % interval.

    Attributes:
        mean: over items and seeds.
        low: lower end.
        high: upper end.
    """

    mean: Finite
    low: Finite
    high: Finite

    @classmethod
    def of(cls, found: Difference) -> Self:
        """What a paired comparison found, in its unit."""
        return cls(mean=found.mean, low=found.low, high=found.high)


class Place(Strict):
    """A layer, one matrix of all its experts, or one of its experts.

    Attributes:
        layer: MoE layer, from 0.
        matrix: `gate`, `up` or `down`; all three where None.
        expert: from 0; all where None.
    """

    layer: int = Field(ge=0)
    matrix: Matrix | None = None
    expert: int | None = Field(default=None, ge=0)

    @property
    def scope(self) -> Scope:
        """The same as a scope of an injection."""
        of = f"layer:{self.layer}" if self.expert is None else f"expert:{self.layer}/{self.expert}"
        return Scope(of if self.matrix is None else f"{of}&matrix:{self.matrix}")

    def __str__(self) -> str:
        expert = "" if self.expert is None else f" expert {self.expert}"
        matrix = "" if self.matrix is None else f" {self.matrix}"
        return f"layer {self.layer}{expert}{matrix}"


class Cell(Strict):
    """What an error at one place and nowhere else does.

    Attributes:
        place: where.
        bound: of the error.
        seeds: of the noise; 1 where the source has none.
        kl: divergence, nats a token.
        nll: change of the negative log-likelihood of the text, nats a token.
    """

    label: Literal["MEASURED"] = "MEASURED"
    place: Place
    bound: BoundText
    seeds: int = Field(ge=1)
    kl: Ranged
    nll: Ranged


class LayerLoss(Strict):
    """The terms of one layer in the sum.

    Attributes:
        kl: f_l at each rung of the ladder, nats a token, never falling, > 0.
        slope: power of the bound with which f_l goes to zero below the smallest rung.
        experts: t_lx, the share of each expert, [experts].
        matrices: s_lm, the share of gate, up and down.
    """

    kl: tuple[Ranged, ...] = Field(min_length=1)
    slope: Positive
    experts: tuple[Share, ...] = Field(min_length=1)
    matrices: tuple[Share, Share, Share]

    @model_validator(mode="after")
    def _checked(self) -> Self:
        for shares in (self.experts, self.matrices):
            if not math.isclose(sum(shares), 1, abs_tol=1e-6):
                raise ValueError(f"shares sum to {sum(shares):g}, not to 1")
        means = [0.0, *(rung.mean for rung in self.kl)]
        if means[1] <= 0 or sorted(means) != means:
            raise ValueError("the loss is above zero and does not fall with the bound")
        return self


class CodecLoss(Strict):
    """What a codec that takes no bound does to each layer alone.

    Attributes:
        codec: by name.
        kl: f_l, nats a token, [layers].
    """

    label: Literal["MEASURED"] = "MEASURED"
    codec: str
    kl: tuple[Ranged, ...] = Field(min_length=1)


class Terms(Strict):
    """The additive model, made from the cells alone.

    Attributes:
        curve: `power` (one power law a layer) or `ladder` (through every rung, straight between
            them in log-log).
        curve_errors: of both, the median relative error at rungs that were left out; it says
            why `curve` was taken. Empty where there are fewer than four rungs.
        layers: [layers].
        matrices_measured: whether shares of matrices are; if not, each has a third.
        experts_measured: experts of each layer whose share is; the others have theirs by usage.
    """

    label: Literal["ESTIMATED"] = "ESTIMATED"
    curve: Literal["power", "ladder"]
    curve_errors: dict[str, Finite]
    layers: tuple[LayerLoss, ...] = Field(min_length=1)
    matrices_measured: bool
    experts_measured: int = Field(ge=0)


class Joint(Strict):
    """Errors everywhere at once, which no fit has seen.

    Attributes:
        varied: `layers`, `matrices` or `experts`: what has bounds of its own; `codecs`: layers
            have a bound or a codec that takes none.
        bounds: of every matrix.
        kl: divergence, nats a token, MEASURED.
        nll: change of the negative log-likelihood, nats a token, MEASURED.
        ica_drop: by which share of items instruction-compliance accuracy fell, MEASURED.
        predicted: divergence by the sum of terms, nats a token, ESTIMATED; its interval is that of
            the terms alone.
    """

    varied: Literal["layers", "matrices", "experts", "codecs"]
    bounds: Bounds
    kl: Ranged
    nll: Ranged
    ica_drop: Ranged | None = None
    predicted: Ranged


class Regime(Strict):
    """Joint injections whose predicted loss is in one range.

    Attributes:
        above: predicted loss, nats a token.
        up_to: the same.
        joints: how many.
        right: how many of them are within the tolerance; None in files that do not say.
        median: relative error, |predicted / measured - 1|.
        worst: of them.
        bias: median of predicted / measured - 1.
    """

    above: Finite
    up_to: Positive
    joints: int = Field(ge=1)
    right: int | None = Field(default=None, ge=0)
    median: Finite
    worst: Finite
    bias: Finite


class Additivity(Strict):
    """How right the sum was for joint injections that the fit has not seen.

    Attributes:
        joints: how many.
        median: relative error, |predicted / measured - 1|.
        worst: of them.
        kendall_tau: between predicted and measured loss; None for fewer than two.
        tolerance: relative error that counts as right.
        within: share of the joints up to some loss that must be right for losses to add up there.
        holds_up_to: largest predicted loss up to which that is so at every size on the way, from
            the ten mildest joints on, nats a token; 0 where it is not, or there are fewer.
        spread: 95 % of the joints up to `holds_up_to`, of all where it is 0, are within this
            factor, >= 1.
        regimes: by predicted loss, small to large.
    """

    joints: int = Field(ge=1)
    median: Finite
    worst: Finite
    kendall_tau: Finite | None = None
    tolerance: Positive
    within: Share
    holds_up_to: Finite
    spread: float = Field(ge=1, allow_inf_nan=False)
    regimes: tuple[Regime, ...]


class Rise(Strict):
    """Whether the divergence of one layer rises with the bound, MEASURED.

    Attributes:
        layer: from 0.
        rises: whether the mean rises at every step of the ladder.
        falls: rungs at which it is below the rung before, beyond the paired 95 % interval.
    """

    layer: int = Field(ge=0)
    rises: bool
    falls: tuple[BoundText, ...]


class ModelFacts(Strict):
    """The model that was measured; sizes as in `offsim.model.ExpertShape`."""

    name: str
    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    hidden: int = Field(ge=1)
    width: int = Field(ge=1)


class Sample(Strict):
    """What was asked of the model.

    Attributes:
        sequences: of text.
        tokens: of each.
        items: of the embedded tasks, together, asked under each joint injection.
        seeds: most seeds that a cell has.
        nll: of the text without an error, nats a token, MEASURED.
        ica: share of items answered rightly without an error, MEASURED.
    """

    sequences: int = Field(ge=1)
    tokens: int = Field(ge=2)
    items: int = Field(ge=0)
    seeds: int = Field(ge=1)
    nll: Finite
    ica: Share | None = None
