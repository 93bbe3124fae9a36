"""Two sweeps side by side: the same scenarios, and by how much their metrics differ."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from offsim.study.sweep.query import CONFIG, USUAL, differing


@dataclass(frozen=True)
class Comparison:
    """What two sweeps have in common.

    Attributes:
        table: a row for each scenario that both answered: the fields in which these differ, and of
            each metric `NAME`, `NAME_against` and `NAME_change`, a fraction: the one over the
            other, less 1 (0 where both are 0, NaN where only the other one is). The largest change
            of TPOT comes first.
        only: scenarios that the first one alone answered.
        only_against: that the other one alone answered.
    """

    table: pd.DataFrame
    only: int
    only_against: int

    @property
    def changes(self) -> dict[str, tuple[float, float, float]]:
        """The smallest, the median and the largest change of each metric; NaN of no scenario."""
        found = {}
        for name in USUAL:
            change = self.table[f"{name}_change"]
            found[name] = (float(change.min()), float(change.median()), float(change.max()))
        return found


def compared(table: pd.DataFrame, against: pd.DataFrame) -> Comparison:
    """Match the scenarios of two sweeps by their configs.

    Traces and calibrations count as the same where they have the same name, whatever is in them:
    so a machine can be held against another one, and a version of offsim against the next. Where a
    file has a config several times, from several engines or inputs, the last one counts.

    Args:
        table: of `offsim.study.sweep.query.rows`.
        against: likewise.
    """
    ours, theirs = _answered(table), _answered(against)
    both = ours.index.intersection(theirs.index, sort=False)
    first, other = ours.loc[both], theirs.loc[both]
    found = first[differing(first)].copy()
    for name in USUAL:
        one, two = first[name].astype(float), other[name].astype(float)
        found[name], found[f"{name}_against"] = one, two
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"{name}_change"] = np.where(
                one == two, 0.0, np.where(two, one / two - 1, np.nan)
            )
    order = found["tpot_s_change"].abs().sort_values(ascending=False, kind="stable").index
    return Comparison(
        found.loc[order].reset_index(drop=True), len(ours) - len(both), len(theirs) - len(both)
    )


def _answered(table: pd.DataFrame) -> pd.DataFrame:
    done = table[table["status"] == "done"].sort_values("number")
    return done.drop_duplicates(CONFIG, keep="last").set_index(CONFIG, drop=False)
