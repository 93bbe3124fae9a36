"""Makes the terms of the additive model from measured cells, and judges it by joint injections."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression
from scipy.stats import kendalltau

from offsim.accuracy.sensitivity_parts import (
    FLOOR,
    Additivity,
    Joint,
    LayerLoss,
    Ranged,
    Regime,
    Terms,
    Values,
)

Curve = Literal["power", "ladder"]
QUADRATIC = 2.0
"""Power of a small error with which the divergence grows (`offsim.accuracy.sensitivity`)."""
LEAST_RUNGS = 4
"""With fewer, a rung that is left out leaves too little to fit a power law to."""
TOLERANCE = 0.25
"""Relative error of a predicted loss that counts as right."""
RIGHT = 0.9
"""Share of the joint injections up to some loss that must be right for losses to add up there."""
LEAST_JUDGED = 10
"""With fewer joint injections a share of nine in ten is no share that one could see."""
COVERED = 0.95
DECADES = (0.0, 0.001, 0.01, 0.1, 1.0, 1e6)
"""Ends of the ranges of predicted loss that are judged apart, nats a token."""


def terms(
    ladder: Sequence[float],
    kl: Values,
    matrices: Values | None,
    experts: Values,
    usage: npt.NDArray[np.int64],
) -> Terms:
    """The additive model.

    Args:
        ladder: bounds, rising, [rungs].
        kl: divergence of each whole layer: mean, low, high, [layers, rungs, 3], nats a token.
        matrices: mean divergence of single matrices at some rungs, [layers, rungs, 3]; None
            where none was measured.
        experts: mean divergence of single experts, all at one bound, [layers, experts]; NaN where
            it was not measured.
        usage: activations, [layers, experts].
    """
    safe = np.maximum(kl, FLOOR)
    curve, errors = chosen_curve(ladder, safe[:, :, 0])
    layers = len(kl)
    of_matrices = np.full((layers, 3), 1 / 3) if matrices is None else matrix_shares(matrices)
    of_experts = expert_shares(experts, usage)
    made = [
        _layer(ladder, safe[layer], curve, of_experts[layer], of_matrices[layer])
        for layer in range(layers)
    ]
    measured = int(np.isfinite(experts).sum(1).min())
    return Terms(
        curve=curve,
        curve_errors=errors,
        layers=tuple(made),
        matrices_measured=matrices is not None,
        experts_measured=measured,
    )


def chosen_curve(ladder: Sequence[float], kl: Values) -> tuple[Curve, dict[str, float]]:
    """The curve that better foretells rungs between the ends that are left out one at a time.

    Args:
        ladder: [rungs].
        kl: mean divergence, [layers, rungs], > 0.

    Returns:
        The curve, and the median relative error of both; `ladder` and none with few rungs.
    """
    if len(ladder) < LEAST_RUNGS:
        return "ladder", {}
    x, y = np.log(ladder), np.log(kl)
    missed: dict[Curve, list[float]] = {"power": [], "ladder": []}
    for out in range(1, len(x) - 1):
        kept = np.delete(np.arange(len(x)), out)
        for row in y:
            slope, start = _power(x[kept], row[kept])
            between = np.interp(x[out], x[kept], _rising(row[kept]))
            missed["power"].append(start + slope * x[out] - row[out])
            missed["ladder"].append(float(between) - row[out])
    errors = {name: float(np.median(np.abs(np.expm1(off)))) for name, off in missed.items()}
    curve: Curve = "power" if errors["power"] < errors["ladder"] else "ladder"
    return curve, {str(name): error for name, error in errors.items()}


def matrix_shares(kl: Values) -> Values:
    """Share of each matrix: geometric means over the rungs [layers, rungs, 3], to a sum of 1."""
    means = np.exp(np.log(np.maximum(kl, FLOOR)).mean(1))
    shares: Values = means / means.sum(1, keepdims=True)
    return shares


def expert_shares(kl: Values, usage: npt.NDArray[np.int64]) -> Values:
    """Share of each expert in the loss of its layer, [layers, experts], each layer's sum 1.

    An expert that was not measured is taken to cost as much an activation as those of its layer
    that were; without any, shares are those of the activations.

    Args:
        kl: [layers, experts], NaN where it was not measured.
        usage: activations, [layers, experts].
    """
    known = np.isfinite(kl)
    losses = np.where(known, np.maximum(kl, 0), 0)
    # Where no activation is known, experts are taken to be used evenly.
    used = np.where(usage.sum(1, keepdims=True) > 0, usage, 1).astype(np.float64)
    cost = losses.sum(1) / np.maximum((used * known).sum(1), FLOOR)
    cost = np.where(cost > 0, cost, 1)
    known &= losses.sum(1, keepdims=True) > 0
    filled = np.where(known, losses, cost[:, None] * used)
    shares: Values = filled / filled.sum(1, keepdims=True)
    return shares


def _layer(
    ladder: Sequence[float], kl: Values, curve: Curve, experts: Values, matrices: Values
) -> LayerLoss:
    """The terms of a layer from its mean, low and high divergence [rungs, 3], all > 0."""
    logs, slope = np.log(kl), QUADRATIC
    if curve == "power":
        slope, start = _power(np.log(ladder), logs[:, 0])
        line = start + slope * np.log(ladder)
        logs = (logs - logs[:, :1]) + line[:, None]
    else:
        # Order is kept: where all values of one end are lower, so are those that come out.
        logs = np.stack([_rising(end) for end in logs.T], axis=1)
    rungs = [Ranged(mean=m, low=low, high=high) for m, low, high in np.exp(logs).tolist()]
    return LayerLoss(
        kl=tuple(rungs),
        slope=max(slope, FLOOR),
        experts=tuple(experts.tolist()),
        matrices=(float(matrices[0]), float(matrices[1]), float(matrices[2])),
    )


def _power(x: Values, y: Values) -> tuple[float, float]:
    """Slope, never falling, and start of the least-squares line."""
    if len(x) == 1:
        return QUADRATIC, float(y[0] - QUADRATIC * x[0])
    slope = max(0.0, float(np.polyfit(x, y, 1)[0]))
    return slope, float((y - slope * x).mean())


def _rising(values: Values) -> Values:
    """The nearest values that never fall, by least squares."""
    found: Values = isotonic_regression(values).x
    return found


def judged(joints: Sequence[Joint]) -> Additivity | None:
    """How right the predicted loss of joint injections is; None where there are none.

    Injections that change nothing beyond rounding have no relative error and are left out.
    """
    counted = [joint for joint in joints if joint.kl.mean > FLOOR]
    if not counted:
        return None
    measured = np.array([joint.kl.mean for joint in counted])
    guessed = np.array([joint.predicted.mean for joint in counted])
    off = guessed / measured - 1
    order = np.argsort(guessed, kind="stable")
    count = _trusted(np.abs(off[order]) <= TOLERANCE)
    trusted = order[:count] if count else order
    factors = np.exp(np.abs(np.log(guessed[trusted] / measured[trusted])))
    tau = float(kendalltau(guessed, measured).statistic) if len(counted) > 1 else None
    return Additivity(
        joints=len(counted),
        median=float(np.median(np.abs(off))),
        worst=float(np.abs(off).max()),
        kendall_tau=tau if tau is not None and np.isfinite(tau) else None,
        tolerance=TOLERANCE,
        within=RIGHT,
        holds_up_to=float(guessed[order[count - 1]]) if count else 0.0,
        spread=float(np.quantile(factors, COVERED)),
        regimes=tuple(_regimes(guessed, off)),
    )


def _trusted(right: npt.NDArray[np.bool_]) -> int:
    """How many joint injections, the mildest first, are enough of them right at every size.

    A share that is too small at some size ends it: one that is reached again further up is owed to
    those that are larger, and says nothing of the smaller ones.

    Args:
        right: whether each is, by rising predicted loss, [joints].

    Returns:
        None of them, or `LEAST_JUDGED` and more.
    """
    shares = np.cumsum(right) / np.arange(1, len(right) + 1)
    wrong = np.flatnonzero(shares[LEAST_JUDGED - 1 :] < RIGHT)
    count = LEAST_JUDGED - 1 + int(wrong[0]) if len(wrong) else len(right)
    return count if count >= LEAST_JUDGED else 0


def _regimes(guessed: Values, off: Values) -> list[Regime]:
    found = []
    for above, up_to in pairwise(DECADES):
        here = off[(guessed > above) & (guessed <= up_to)]
        if len(here):
            found.append(
                Regime(
                    above=above,
                    up_to=up_to,
                    joints=len(here),
                    right=int((np.abs(here) <= TOLERANCE).sum()),
                    median=float(np.median(np.abs(here))),
                    worst=float(np.abs(here).max()),
                    bias=float(np.median(here)),
                )
            )
    return found
