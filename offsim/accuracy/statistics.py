"""Paired comparisons: what is a difference, and what is chance.

Two evaluations are compared over the same items. An error that is drawn has several seeds, and a
value swings with the seed, so seeds are part of every interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, t

from offsim.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 2000

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference, after - before, with its interval.

    Attributes:
        mean: over items and seeds, in the unit of the values.
        low: lower end of the 95 % interval.
        high: upper end.
        items: compared.
        seeds: of the error.
    """

    mean: float
    low: float
    high: float
    items: int
    seeds: int


def difference(
    before: npt.NDArray[Any], after: npt.NDArray[Any], resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Mean of after - before with a two-way bootstrap over items and seeds.

    Items and seeds are resampled independently (the pigeonhole bootstrap, Owen 2007, Annals of
    Applied Statistics 1, 386-411). As it stands it is too wide where items and seeds interact,
    which it counts in both ways, and too narrow for few seeds. So the effects of seeds are scaled
    by sqrt(S / (S - 1)) and by the ratio of Student's quantile with S - 1 degrees of freedom to
    the normal one, and by sqrt(1 - MS_interaction / MS_seeds), the part of their variance that
    is no interaction (two-way analysis of variance). With one seed the interval is that of the
    items alone, and says nothing about other seeds.

    Args:
        before: [items], bool or float.
        after: [items] or [seeds, items], the same items in the same order.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: other shapes, or nothing to compare.
    """
    values = paired(before, after)
    seeds, items = values.shape
    mean = float(values.mean())
    by_item, by_seed = values.mean(0) - mean, values.mean(1) - mean
    drawn = np.random.default_rng(seed)
    spread = _resampled(by_item, resamples, drawn)
    if seeds > 1:
        interaction = values - mean - by_item - by_seed[:, None]
        scale = _seed_scale(by_seed, interaction)
        spread += scale * _resampled(by_seed, resamples, drawn)
    ends = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(mean, mean + float(ends[0]), mean + float(ends[1]), items, seeds)


def paired(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Values:
    """The differences after - before, [seeds, items] float64; as for `difference`."""
    rows = np.atleast_2d(np.asarray(after, np.float64))
    first = np.asarray(before, np.float64)
    if first.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(first) or not rows.size:
        raise InputError(
            f"values of the shapes {list(first.shape)} and {list(np.shape(after))} are not of the "
            "same items; compare [items] with [seeds, items]"
        )
    return rows - first


def _resampled(effects: Values, resamples: int, drawn: np.random.Generator) -> Values:
    """Means of resampled effects [effects], [resamples]."""
    count = len(effects)
    counts = drawn.multinomial(count, np.full(count, 1 / count), resamples)
    means: Values = counts @ effects / count
    return means


def _seed_scale(by_seed: Values, interaction: Values) -> float:
    seeds, items = interaction.shape
    between = items * float((by_seed**2).sum()) / (seeds - 1)
    if items < 2 or not between:
        within = 0.0
    else:
        within = float((interaction**2).sum()) / ((seeds - 1) * (items - 1))
    own = max(0.0, 1 - within / between) if between else 0.0
    upper = (1 + CONFIDENCE) / 2
    few = float(t.ppf(upper, seeds - 1) / norm.ppf(upper)) * math.sqrt(seeds / (seeds - 1))
    return few * math.sqrt(own)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether paired right and wrong answers changed more one way than the other.

    Attributes:
        worse: items that were right and are wrong, [seeds] int64.
        better: items that were wrong and are right, [seeds] int64.
        each: exact two-sided p of each seed, [seeds] float64.
        p: of all seeds together.
        discordance: share of items that changed either way, mean over seeds, 0..1.
    """

    worse: npt.NDArray[np.int64]
    better: npt.NDArray[np.int64]
    each: Values
    p: float
    discordance: float


def mcnemar(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> McNemar:
    """The exact test of McNemar (1947), a binomial test of the items that changed.

    Seeds share their items, so their tests depend on each other and their counts must not be
    added up. `p` is twice the median of the p of the seeds, at most 1, which is valid however they
    depend on each other (Rueschendorf 1982, Advances in Applied Probability 14, 623-632); with one
    seed it is that p. With an even number of seeds the median is the upper one.

    Args:
        before: [items] bool.
        after: [items] or [seeds, items] bool, the same items in the same order.

    Raises:
        InputError: other shapes, or nothing to compare.
    """
    changes = paired(before, after)
    worse, better = (changes < 0).sum(1), (changes > 0).sum(1)
    each = np.array(
        [
            binomtest(int(w), int(w + b)).pvalue if w + b else 1.0
            for w, b in zip(worse, better, strict=True)
        ]
    )
    p = float(each[0])
    if len(each) > 1:
        p = min(1.0, 2 * float(np.sort(each)[len(each) // 2]))
    return McNemar(worse, better, each, p, float((changes != 0).mean()))


def detectable_change(
    items: int, discordance: float, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest change of accuracy that a paired design would find with this power.

    Connor's sample size of McNemar's test (1987, Biometrics 43, 207-211), solved for the change d:
    items d^2 = (z_a sqrt(discordance) + z_b sqrt(discordance - d^2))^2, two-sided.

    Args:
        items: compared, 1 or more.
        discordance: share of items that change either way, 0..1.
        alpha: of the test.
        power: wanted, 0.5..1.

    Returns:
        A difference of shares, 0..1; infinite where not even a change of all discordant items in
        one direction would do.
    """
    za, zb = float(norm.isf(alpha / 2)), float(norm.ppf(power))
    lead = items + zb**2
    root = lead * (zb**2 - za**2) + items * za**2
    found = math.sqrt(discordance) * (za * math.sqrt(items) + math.sqrt(max(0.0, root))) / lead
    return found if 0 < found <= discordance else math.inf


def holm(p: Sequence[float] | Values) -> Values:
    """Values p [tests] corrected for their number (Holm 1979): [tests] float64, in their order."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return corrected
