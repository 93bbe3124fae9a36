"""How sensitive a model is: what a bounded error costs at each place, and what many cost together.

The file holds what was measured, and a model made from it that predicts the loss under any table
of bounds. The loss is the divergence KL(unperturbed || perturbed) of the next-token distribution,
nats a token. The model adds up: with f_l the loss when all of layer l has one bound, t_lx the
share of expert x in it and s_lm that of matrix m, each of which sums to 1,

    loss(bounds) = sum over l, x, m of t_lx s_lm f_l(bound of l, x, m).

Of a codec that takes no bound f_l is what was measured with all of layer l under it, and that of a
codec that gives the same weights back is 0.

A small error changes the logits in proportion and the divergence by the square (its first
derivative is zero at its minimum), and errors of several places are uncorrelated: hence the sum.
Where errors are large neither holds; `additivity` says how far the sum was right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from offsim.accuracy.scopes import Scope
from offsim.accuracy.statistics import Difference
from offsim.calibration.schema import Machine
from offsim.codec import codec_named
from offsim.codec.bounds import Bound, Kind
from offsim.errors import InputError
from offsim.policy.bounds import MATRICES, Bounds, BoundText, Form, Matrix, Strict

VERSION = 1
FLOOR = 1e-9
"""Divergence below which rounding of float32 logits is all there is, nats a token."""
ROUNDING = 1e-9
"""By which share a bound may exceed the largest rung and still be that rung."""

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


@dataclass(frozen=True, slots=True)
class Predicted:
    """The loss under a table of bounds, ESTIMATED.

    Attributes:
        kl: nats a token. Its interval holds the ends of all terms at once, which is wide, times
            the factor by which sums were off in joint injections.
        additive: whether sums of this size and of all smaller ones were right there.
    """

    kl: Ranged
    additive: bool


class Sensitivity(Strict):
    """A sensitivity file: JSON, `offsim-sensitivity`.

    Attributes:
        model: which.
        source: of the error, as in `offsim.accuracy.sources`.
        kind: of all bounds.
        ladder: values of the bounds, rising, of that kind.
        sample: what was asked.
        cells: errors at one place.
        terms: the additive model.
        unbounded: codecs that take no bound.
        joints: held-out injections.
        additivity: how right the model was there.
        rises: of each layer.
        offsim: version that measured it; None in files that do not say.
        machine: on which the last of it was measured, with the date; likewise.
        seconds: that all injections took together, s; likewise.
    """

    format: Literal["offsim-sensitivity"] = "offsim-sensitivity"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    measure: Literal["kl"] = "kl"
    model: ModelFacts
    source: str
    kind: Kind
    ladder: tuple[Positive, ...] = Field(min_length=1)
    sample: Sample
    cells: tuple[Cell, ...]
    terms: Terms
    unbounded: tuple[CodecLoss, ...] = ()
    joints: tuple[Joint, ...] = ()
    additivity: Additivity | None = None
    rises: tuple[Rise, ...] = ()
    offsim: str | None = None
    machine: Machine | None = None
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if any(high <= low for low, high in pairwise(self.ladder)):
            raise ValueError("the rungs of the ladder rise")
        if len(self.terms.layers) != self.model.layers:
            raise ValueError(f"{len(self.terms.layers)} layers of {self.model.layers} have terms")
        for layer in self.terms.layers:
            if len(layer.kl) != len(self.ladder) or len(layer.experts) != self.model.experts:
                raise ValueError("every layer has a loss for each rung and a share for each expert")
        for one in self.unbounded:
            if len(one.kl) != self.model.layers:
                raise ValueError(f"{len(one.kl)} layers of {self.model.layers} under {one.codec}")
        return self

    def predict(self, bounds: Bounds) -> Predicted:
        """The loss when every matrix has an error of its bound.

        Raises:
            InputError: a bound of another kind or above the ladder, a codec that takes none and was
                not measured, or a layer or expert that the model does not have.
        """
        loss = self.sum_of_terms(bounds)
        found = self.additivity
        additive = found is not None and loss.mean <= found.holds_up_to
        wide = 1.0 if found is None else found.spread
        kl = Ranged(mean=loss.mean, low=loss.low / wide, high=loss.high * wide)
        return Predicted(kl, additive)

    def sum_of_terms(self, bounds: Bounds) -> Ranged:
        """The loss as `predict` gives it, with the interval of the terms alone."""
        used, at = bounds.table(self.model.layers, self.model.experts)
        losses = self.losses_of(used)
        total = np.zeros(3)
        for layer, held in enumerate(at):
            weights = np.bincount(held.ravel(), self._shares[layer].ravel(), len(used))
            total += weights @ losses[layer]
        return Ranged(mean=float(total[0]), low=float(total[1]), high=float(total[2]))

    def term(self, place: Place, form: Form) -> Ranged:
        """What a place adds to the loss when stored so, nats a token; raises as `predict`."""
        shares = self._shares[place.layer]
        if place.expert is not None:
            shares = shares[place.expert : place.expert + 1]
        if place.matrix is not None:
            shares = shares[:, [MATRICES.index(place.matrix)]]
        mean, low, high = shares.sum() * self.losses_of([form])[place.layer, 0]
        return Ranged(mean=float(mean), low=float(low), high=float(high))

    def losses_of(self, forms: Sequence[Form]) -> Values:
        """The loss of each layer alone under each form: f_l, its lower and its upper end.

        A codec that takes a bound loses what the ladder says of that bound, whichever it is.

        Returns:
            [layers, forms, 3] float64, nats a token.

        Raises:
            InputError: as for `predict`.
        """
        found = np.zeros((self.model.layers, len(forms), 3))
        for place, form in enumerate(forms):
            if form.bound is not None:
                found[:, place] = self.losses([self._value(form.bound)])[:, 0]
            elif form.codec is not None and codec_named(form.codec).promise != "exact":
                found[:, place] = [(one.mean, one.low, one.high) for one in self._under(form.codec)]
        return found

    def _under(self, codec: str) -> tuple[Ranged, ...]:
        """f_l of each layer under a codec that takes no bound."""
        for one in self.unbounded:
            if codec_named(one.codec) == codec_named(codec):
                return one.kl
        raise InputError(
            f"the sensitivity does not say what {codec} loses; measure it with `offsim sensitivity "
            f"--also {codec}`"
        )

    def losses(self, values: Sequence[float]) -> Values:
        """The loss of each layer alone: f_l, its lower and its upper end.

        Args:
            values: bounds of the kind of this file, up to the largest rung.

        Returns:
            [layers, values, 3] float64, nats a token.
        """
        asked, rungs = np.log(np.asarray(values, np.float64)), np.log(self.ladder)
        below = np.minimum(0.0, asked - rungs[0])
        found = np.empty((self.model.layers, len(asked), 3))
        for layer, logs in enumerate(self._logs):
            for end in range(3):
                inside = np.interp(asked, rungs, logs[:, end])
                found[layer, :, end] = np.exp(inside + self.terms.layers[layer].slope * below)
        return found

    @cached_property
    def _shares(self) -> Values:
        """[layers, experts, 3]."""
        return np.stack([np.outer(layer.experts, layer.matrices) for layer in self.terms.layers])

    @cached_property
    def _logs(self) -> Values:
        """[layers, rungs, 3]."""
        ends = [[(r.mean, r.low, r.high) for r in layer.kl] for layer in self.terms.layers]
        logs: Values = np.log(np.maximum(np.array(ends), FLOOR))
        return logs

    def _value(self, bound: Bound) -> float:
        if bound.kind != self.kind:
            raise InputError(
                f"the bound {bound} is not of the kind {self.kind} for which the sensitivity was "
                f"measured; state bounds as {self.kind}, or measure it with bounds of that kind"
            )
        if bound.value > self.ladder[-1] * (1 + ROUNDING):
            raise InputError(
                f"the bound {bound} is above {Bound(self.ladder[-1], self.kind)}, the largest for "
                "which the sensitivity was measured; measure it with larger --bounds"
            )
        return bound.value
