"""Accuracy and texts before and after an error: both with their intervals, and the change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from offsim.accuracy.questions import Answers
from offsim.accuracy.statistics import (
    CONFIDENCE,
    Difference,
    McNemar,
    detectable_change,
    difference,
    mcnemar,
)
from offsim.accuracy.texts import Reading

ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True, slots=True)
class Comparison:
    """How right answers changed with an error, over the same items.

    Attributes:
        before: share of items right without the error, its mean 0..1, with its interval.
        after: the same with the error, over all seeds.
        change: after - before, paired by item.
        test: McNemar's, of the change.
        detectable: the smallest change of the share that so many items find in one seed with a
            power of 80 % at the 5 % level, 0..1; infinite for too few items.
    """

    before: Difference
    after: Difference
    change: Difference
    test: McNemar
    detectable: float


def compare(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> Comparison:
    """Compare right answers without an error and with it.

    Args:
        before: [items] bool.
        after: [items] or [seeds, items] bool, the same items in the same order.

    Raises:
        InputError: other shapes, or nothing to compare.
    """
    test = mcnemar(before, after)
    return Comparison(
        share(before),
        share(after),
        difference(before, after),
        test,
        detectable(len(before), test.discordance),
    )


def share(right: npt.NDArray[Any]) -> Difference:
    """Share of items that are right, with its 95 % interval.

    It is Wilson's (1927) for one seed. For several the ends are the wider ones of Wilson's, of the
    items alone, and of the bootstrap over items and seeds, which has no width where every answer
    is right.

    Args:
        right: [items] or [seeds, items], bool.

    Raises:
        InputError: nothing is there.
    """
    rows = np.atleast_2d(right)
    found = difference(np.zeros(rows.shape[1]), rows)
    wilson = binomtest(round(found.mean * found.items), found.items).proportion_ci(
        CONFIDENCE, method="wilson"
    )
    low, high = float(wilson.low), float(wilson.high)
    if found.seeds > 1:
        low, high = min(low, found.low), max(high, found.high)
    return Difference(found.mean, low, high, found.items, found.seeds)


def detectable(items: int, discordance: float) -> float:
    """The smallest change of accuracy that so many items would show.

    It is `detectable_change` where the items that changed are enough for it. Where they are not,
    a change that could be seen would itself make more items change: then it is the change d whose
    discordance is d, all in one direction, items d = (z_a + z_b sqrt(1 - d))^2.

    Args:
        items: compared, 1 or more.
        discordance: share of items that changed either way, 0..1.

    Returns:
        A difference of shares, 0..1; infinite where even a change of all items would not do.
    """
    found = detectable_change(items, discordance, ALPHA, POWER)
    if math.isfinite(found):
        return found
    za, zb = float(norm.isf(ALPHA / 2)), float(norm.ppf(POWER))
    if items <= za**2:
        return math.inf
    return float(brentq(lambda d: items * d - (za + zb * math.sqrt(1 - d)) ** 2, 0, 1))


@dataclass(frozen=True, slots=True)
class Divergence:
    """How an error changes what a model predicts of texts, paired by sequence.

    Attributes:
        kl: KL(without || with the error) of the next-token distribution, nats a token.
        nll: change of the negative log-likelihood, nats a token.
        before: perplexity without the error, >= 1.
        after: perplexity with it, the geometric mean over seeds, >= 1; its ends are those of the
            paired change from `before`.
    """

    kl: Difference
    nll: Difference
    before: float
    after: Difference


def diverged(before: Reading, after: Sequence[Reading]) -> Divergence:
    """Compare readings of the same texts, whose sequences count alike.

    Args:
        before: without the error.
        after: with it, one a seed.

    Raises:
        InputError: nothing to compare, or other texts.
    """
    kl, nll = (np.array([getattr(one, name) for one in after]) for name in ("kl", "nll"))
    change = difference(before.nll, nll)
    without = math.exp(before.nll.mean())
    mean, low, high = (without * math.exp(one) for one in (change.mean, change.low, change.high))
    return Divergence(
        kl=difference(np.zeros(len(before.kl)), kl),
        nll=change,
        before=without,
        after=Difference(mean, low, high, change.items, change.seeds),
    )


@dataclass(frozen=True, slots=True)
class Continued:
    """How far greedy answers with an error are those without one.

    Attributes:
        agreement: share of the tokens of an answer before the first other one, mean 0..1.
        exact: share of the answers that are the same to the end, 0..1.
    """

    agreement: Difference
    exact: Difference


def continued(after: Sequence[Answers], *tasks: str) -> Continued:
    """Compare answers with those that the unperturbed model gives to the same items.

    Args:
        after: with the error, one a seed.
        tasks: of which; all where none is named.

    Raises:
        InputError: nothing to compare.
    """
    agreed = np.array([one.agreed(*tasks) for one in after])
    exact = np.array([one.exact(*tasks) for one in after])
    return Continued(difference(np.zeros(agreed.shape[-1]), agreed), share(exact))
