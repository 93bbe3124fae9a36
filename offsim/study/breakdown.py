"""Where the time of a decode step goes, simulated and measured, as a table."""

from collections.abc import Sequence

import pandas as pd

from offsim.record import Metrics
from offsim.record.events import SELDOM
from offsim.study.check import Checked


def breakdown(checked: Sequence[Checked]) -> pd.DataFrame:
    """Rows of scenario, label, part (compute or a stage of the stall) and seconds a token."""
    rows = []
    for one in checked:
        rows += _parts(str(one.scenario), one.predicted)
        rows += _parts(str(one.scenario), one.measured)
    return pd.DataFrame(rows, columns=["scenario", "label", "part", "seconds"])


def _parts(scenario: str, metrics: Metrics) -> list[tuple[str, str, str, float]]:
    stall = {p: s for p, s in metrics.decode_stall_s.items() if s or p not in SELDOM}
    parts = {"compute": metrics.decode_compute_s, **stall}
    return [(scenario, metrics.label, part, seconds) for part, seconds in parts.items()]
