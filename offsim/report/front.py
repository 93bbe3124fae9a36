"""The scenarios of a sweep in two of their columns, and those that nothing beats."""

from typing import get_args

import pandas as pd
from matplotlib.figure import Figure

from offsim.record.events import Label
from offsim.report.style import FAINT, codec_colour, new_figure, themed, titled
from offsim.study.sweep.judged import DERIVED, JOULES, KL, USD
from offsim.units import GB

WRITTEN = {
    "tpot_s": ("TPOT, ms", 1e3),
    "ttft_s": ("TTFT, ms", 1e3),
    "itl_p95_s": ("ITL p95, ms", 1e3),
    "device_bytes": ("experts on the device, GB", 1 / GB),
    "host_bytes": ("experts in host memory, GB", 1 / GB),
    KL: ("loss: KL, nats a token", 1.0),
    USD: ("USD a million tokens", 1.0),
    JOULES: ("J a token", 1.0),
}
"""How a column is written on an axis, and by what its numbers are multiplied."""
FACTOR = 30.0
"""Of largest to least, above which an axis is logarithmic."""


@themed
def front_figure(every: pd.DataFrame, best: pd.DataFrame, names: list[str]) -> Figure:
    """All scenarios faint, and the front in the colours of its codecs.

    Args:
        every: scenarios.
        best: those that nothing beats, in all of the columns.
        names: of the columns; the first two are drawn.
    """
    figure = new_figure(4.6)
    axes = figure.subplots()
    (xlabel, x_times), (ylabel, y_times) = (WRITTEN.get(n, (n, 1.0)) for n in names[:2])

    def places(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        return x_times * rows[names[0]], y_times * rows[names[1]]

    axes.plot(*places(every), ".", color=FAINT, alpha=0.35, markersize=4, label="beaten")
    for codec, rows in best.groupby("policy.codec"):
        axes.plot(*places(rows), "o", color=codec_colour(str(codec)), label=str(codec))
    if len(names) == 2:  # with more aims the front is no line
        axes.plot(*places(best), color=FAINT, linewidth=1, zorder=0)
    for axis, values in zip((axes.set_xscale, axes.set_yscale), places(every), strict=True):
        known = values.dropna()
        if len(known) and known.min() > 0 and known.max() > FACTOR * known.min():
            axis("log")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(title=f"{len(best):,} of {len(every):,} that nothing beats")
    others = f", beside {', '.join(names[2:])}" if len(names) > 2 else ""
    labels = set(every["label"].dropna()) | ({"ESTIMATED"} if set(names) & set(DERIVED) else set())
    titled(
        figure,
        f"What no other scenario beats{others}",
        [one for one in get_args(Label) if one in labels],
    )
    return figure
