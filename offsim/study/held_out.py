"""How far a prediction is from the tokens that it was not fitted on, beside a trivial one."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from offsim.study.measured import HeldOut

TIMES = {"wall_s": "whole token", "compute_s": "compute", "stall_s": "stall", "mgmt_s": "managing"}
COUNTS = {"read_bytes": "bytes read"}
OVERALL: dict[str, tuple[str, Callable[[pd.Series], float]]] = {
    "mean_s": ("wall_s", lambda wall: float(wall.mean())),
    "median_s": ("wall_s", lambda wall: float(wall.median())),
    "p95_s": ("wall_s", lambda wall: float(np.percentile(wall, 95))),
    "tokens_per_s": ("wall_s", lambda wall: float(1 / wall.mean())),
    "compute_s": ("compute_s", lambda part: float(part.mean())),
    "stall_s": ("stall_s", lambda part: float(part.mean())),
    "mgmt_s": ("mgmt_s", lambda part: float(part.mean())),
    "read_bytes": ("read_bytes", lambda part: float(part.mean())),
}
"""What is compared over all held-out tokens: of which column, and how it becomes one number."""


def overall(found: HeldOut) -> pd.DataFrame:
    """A row a metric: what was measured and what was predicted for it.

    Returns:
        Columns `metric`, `measured`, `simulated`, `error` (a fraction of what was measured; a
        difference for hit rates), and `baseline` and `baseline_error`: of the mean of the fitted
        tokens as the prediction of every other one, NaN where nothing was fitted. Seconds, bytes a
        token, tokens/s, and hit rates 0..1: `hit_rate` of the held-out tokens, `hit_rate_so_far`
        of the whole run until its last token.
    """
    held, known = found.held, found.known
    rows = []
    for metric, (column, of) in OVERALL.items():
        if f"{column}_measured" not in held:
            continue
        before = None if known is None else known[f"{column}_measured"].mean()
        # One number for every token: its mean, its median and its 95th percentile are itself.
        baseline = np.nan if before is None else of(pd.Series([before]))
        measured, simulated = (of(held[f"{column}_{side}"]) for side in ("measured", "simulated"))
        rows.append(_row(metric, measured, simulated, baseline, lambda a, b: _ratio(a, b) - 1))
    for metric, hit_rates in _hit_rates(found).items():
        rows.append(_row(metric, *hit_rates, lambda a, b: a - b))
    return pd.DataFrame(rows)


def by_token(found: HeldOut) -> pd.DataFrame:
    """A row a part of a token's time or bytes: how well each single token is predicted.

    Returns:
        Columns `part`, `correlation` of what was measured and predicted (Pearson's, NaN where
        one of the two does not vary), `simulated_off` and `baseline_off`: mean absolute error, s or
        bytes, of the simulation and of the mean of the fitted tokens.
    """
    held, known = found.held, found.known
    rows = []
    for column in (*TIMES, *COUNTS):
        if f"{column}_measured" not in held:
            continue
        measured, simulated = held[f"{column}_measured"], held[f"{column}_simulated"]
        off = np.nan
        if known is not None:
            off = float((measured - known[f"{column}_measured"].mean()).abs().mean())
        rows.append(
            {
                "part": column,
                "correlation": _correlation(measured, simulated),
                "simulated_off": float((measured - simulated).abs().mean()),
                "baseline_off": off,
            }
        )
    return pd.DataFrame(rows)


def facts(found: HeldOut) -> dict[str, Any]:
    """Everything of the comparison as plain values; None is not known."""
    fitted = None
    if found.fitted is not None:
        fitted = asdict(found.fitted)
        del fitted["calibration"]
    return {
        "label": found.label,
        "tokens_compared": len(found.held),
        "fitted": fitted,
        "overall": _by_first(overall(found)),
        "by_token": _by_first(by_token(found)),
    }


def _hit_rates(found: HeldOut) -> dict[str, tuple[float, float, float]]:
    """Measured, simulated, and of the fitted tokens."""
    held, known = found.held, found.known
    rates = {}
    if "hits_measured" in held:
        measured, simulated = (
            float(held[f"hits_{side}"].sum() / held["lookups"].sum())
            for side in ("measured", "simulated")
        )
        before = np.nan
        if known is not None:
            before = float(known["hits_measured"].sum() / known["lookups"].sum())
        rates["hit_rate"] = measured, simulated, before
    if "hit_share_measured" in held:
        last = found.tokens.iloc[-1]
        rates["hit_rate_so_far"] = (
            float(last["hit_share_measured"]),
            float(last["hit_share_simulated"]),
            np.nan,
        )
    return rates


def _row(
    metric: str,
    measured: float,
    simulated: float,
    baseline: float,
    error: Callable[[float, float], float],
) -> dict[str, Any]:
    return {
        "metric": metric,
        "measured": measured,
        "simulated": simulated,
        "error": error(simulated, measured),
        "baseline": baseline,
        "baseline_error": error(baseline, measured),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else np.nan


def _correlation(one: pd.Series, other: pd.Series) -> float:
    # What differs by rounding of the clock alone does not vary.
    flat = [float(np.ptp(part)) <= 1e-9 * float(np.abs(part).max()) for part in (one, other)]
    return float("nan") if any(flat) else float(np.corrcoef(one, other)[0, 1])


def _by_first(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Rows by what their first column says."""
    return {
        row[0]: {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(table.columns[1:], row[1:], strict=True)
        }
        for row in table.itertuples(index=False)
    }
