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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from offsim.accuracy.sensitivity_parts import (
    FLOOR,
    Additivity,
    Cell,
    CodecLoss,
    Joint,
    ModelFacts,
    Place,
    Positive,
    Ranged,
    Rise,
    Sample,
    Terms,
    Values,
)
from offsim.calibration.schema import Machine
from offsim.codec import codec_named
from offsim.codec.bounds import Bound, Kind
from offsim.errors import InputError
from offsim.policy.bounds import MATRICES, Bounds, Form, Rule, Strict

VERSION = 1
ROUNDING = 1e-9
"""By which share a bound may exceed the largest rung and still be that rung."""


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

    def everywhere(self, form: Form) -> Predicted:
        """The loss when every matrix is stored so; raises as `predict`."""
        unsaid = Bound(self.ladder[0], self.kind)
        rules = () if form.codec is None else (Rule(bound=form.bound, codec=form.codec),)
        return self.predict(Bounds(default=form.bound or unsaid, rules=rules))

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
