"""Which tasks tolerate which bound where, from the changes of each task.

Each answer is by an interval of 95 % of its own. They are not corrected for their number: a family
of hundreds of small samples would leave next to nothing to say of any one. So up to one answer in
forty may be owed to chance (one end of an interval decides).
"""

from typing import Literal

import pandas as pd

LOST = 0.05
"""Loss of ICA, a share of the items of a task, that counts as one: 100 items and 5 seeds do not
tell much less."""
Answer = Literal["tolerates", "loses", "cannot be told"]


def tolerance_table(tasks: pd.DataFrame) -> pd.DataFrame:
    """For each task and layer, the bounds that it tolerates.

    Args:
        tasks: `tasks_table` of the part `layers`: changes of ICA by place, level and task.

    Returns:
        A row a task and layer: `tolerates`, the largest bound (sigma) up to which the loss is
        below `LOST` by its interval, at it and at all smaller ones, 0 if there is none; `loses`,
        the smallest one at which it is above by its interval, NaN if there is none. Between the
        two it cannot be told.
    """
    rows = []
    for (task, place), found in tasks.groupby(["task", "place"], sort=False):
        tolerated, lost = 0.0, float("nan")
        below = True
        for row in found.sort_values("level").to_dict("records"):
            one = answer(row["ica_change_low"], row["ica_change_high"])
            below = below and one == "tolerates"
            if below:
                tolerated = row["level"]
            if one == "loses" and pd.isna(lost):
                lost = row["level"]
        rows.append({"task": task, "layer": place, "tolerates": tolerated, "loses": lost})
    return pd.DataFrame(rows)


def answer(low: float, high: float) -> Answer:
    """What the interval of a change of ICA says, both ends a share of the items."""
    if low > -LOST:
        return "tolerates"
    return "loses" if high < -LOST else "cannot be told"
