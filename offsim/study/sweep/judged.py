"""What a sweep's scenarios cost and lose, and which of them nothing beats."""

import json
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from offsim.accuracy.sensitivity import Sensitivity
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Form
from offsim.policy.policy import Policy

KL = "kl"
USD, JOULES = "usd_per_mtoken", "joules_per_token"
S_PER_H = 3600
DERIVED = (KL, USD, JOULES)
"""Columns that `offsim results` adds where it is told what they need, ESTIMATED."""


def with_loss(table: pd.DataFrame, sensitivity: Sensitivity) -> pd.DataFrame:
    """The table with a column `kl`, nats a token, ESTIMATED.

    NaN where the sensitivity does not say: for a codec that promises no bound and was not measured,
    a bound above its ladder or of another kind, and misses of low weight that come coarse.

    Args:
        table: of `offsim.study.sweep.query.rows`; all of its traces are of one model.
        sensitivity: of that model.
    """
    known: dict[str, float] = {}
    losses = []
    for text in table["config"]:
        policy = json.dumps(json.loads(text)["policy"], sort_keys=True)
        if policy not in known:
            known[policy] = _loss(Policy.model_validate_json(policy), sensitivity)
        losses.append(known[policy])
    return table.assign(**{KL: np.array(losses, float)})


def _loss(policy: Policy, sensitivity: Sensitivity) -> float:
    if policy.low is not None:
        return np.nan
    try:
        if policy.bounds is not None:
            return sensitivity.predict(policy.bounds).kl.mean
        if codec_named(policy.codec).promise == "bound":
            return sensitivity.everywhere(Form(Bound(policy.bound))).kl.mean
        return sensitivity.everywhere(Form(None, policy.codec)).kl.mean
    except InputError:
        return np.nan


def with_cost(table: pd.DataFrame, usd_per_h: float | None, power_w: float | None) -> pd.DataFrame:
    """The table with what tokens cost on a machine that is busy all the time, ESTIMATED.

    Args:
        table: with `tokens_per_s`.
        usd_per_h: of the machine; None: no column of money.
        power_w: that it draws; None: no column of energy.
    """
    added = {}
    if usd_per_h is not None:
        added[USD] = usd_per_h / S_PER_H / table["tokens_per_s"] * 1e6
    if power_w is not None:
        added[JOULES] = power_w / table["tokens_per_s"]
    return table.assign(**added)


def front(table: pd.DataFrame, aims: Sequence[str]) -> pd.DataFrame:
    """The rows that no other row beats: none is as good in every aim and better in one.

    Of rows that are equal in all of them the first stays. Rows without a number for one of them
    are left out.

    Args:
        table: a row a scenario.
        aims: columns that are to be small; with `-` before it, large.

    Returns:
        Rows in the order of the first aim.

    Raises:
        InputError: no such column of numbers.
    """
    values = np.column_stack([_aimed(table, aim) for aim in aims])
    whole = np.flatnonzero(np.isfinite(values).all(axis=1))
    order = whole[np.lexsort(values[whole].T[::-1])]  # by the first aim, then the next ones
    kept: list[int] = []
    for row in order.tolist():
        # Who comes later in this order cannot beat who came before.
        if not (values[kept] <= values[row]).all(axis=1).any():
            kept.append(row)
    return table.iloc[kept]


def _aimed(table: pd.DataFrame, aim: str) -> npt.NDArray[np.float64]:
    name = aim.removeprefix("-")
    if name not in table or not pd.api.types.is_numeric_dtype(table[name]):
        needs = {KL: "--sensitivity", USD: "--hardware", JOULES: "--hardware"}.get(name)
        remedy = f"; give {needs}" if needs else ", such as tpot_s or device_bytes"
        raise InputError(f"--pareto {aim}: no column of numbers of this name{remedy}")
    values: npt.NDArray[np.float64] = table[name].to_numpy(float)
    return -values if aim.startswith("-") else values


def aims_of(text: str) -> list[str]:
    """The aims of an option, such as `tpot_s,kl,device_bytes`.

    Raises:
        InputError: fewer than two, or one of them twice.
    """
    aims = [one.strip() for one in text.split(",") if one.strip()]
    if len(aims) < 2 or len(set(_names(aims))) < len(aims):
        raise InputError(f"--pareto {text!r}: give two aims or more, such as tpot_s,device_bytes")
    return aims


def _names(aims: Iterable[str]) -> list[str]:
    return [aim.removeprefix("-") for aim in aims]
