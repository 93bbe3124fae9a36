"""Where the time of a decode step goes, simulated and measured, as a table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from offsim.record import Metrics
from offsim.study.check import Checked


def breakdown(checked: Sequence[Checked]) -> pd.DataFrame:
    """Rows of scenario, label, part (compute or a stage of the stall) and seconds a token."""
    rows = []
    for one in checked:
        rows += _parts(str(one.scenario), [one.predicted])
        rows += _parts(str(one.scenario), one.measured)
    return pd.DataFrame(rows, columns=["scenario", "label", "part", "seconds"])


def _parts(scenario: str, metrics: Sequence[Metrics]) -> list[tuple[str, str, str, float]]:
    label = metrics[0].label
    compute = float(np.median([m.decode_compute_s for m in metrics]))
    parts: list[tuple[str, str, str, float]] = [(scenario, label, "compute", compute)]
    for stage in metrics[0].decode_stall_s:
        seconds = float(np.median([m.decode_stall_s[stage] for m in metrics]))
        parts.append((scenario, label, stage, seconds))
    return parts
