"""What an engine measured and what was predicted for it, token by token."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offsim.report.style import (
    FAINT,
    LABEL_COLOURS,
    PART_COLOURS,
    SMALL,
    new_figure,
    plain_log,
    themed,
    titled,
)
from offsim.study.measured import HeldOut

WIDE = 8
"""Largest over smallest time of a token above which the axis is logarithmic."""


@themed
def held_out_figure(found: HeldOut, name: str) -> Figure:
    """The time of every token, measured and predicted; below it the stall, where that is known.

    Args:
        found: the comparison; tokens that were fitted on stand on a grey ground.
        name: of the log, for the title.
    """
    tokens = found.tokens
    parts = {"wall_s": "time of a token, ms"}
    if "stall_s_measured" in tokens:
        parts["stall_s"] = "of it waiting for experts, ms"
    figure = new_figure(3.4 * len(parts) + 0.4)
    panels = figure.subplots(len(parts), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (column, label) in zip(panels, parts.items(), strict=True):
        _draw(axes, found, column)
        axes.set_ylabel(label)
    panels[-1].set_xlabel("decode token")
    panels[0].legend(loc="upper left", ncols=3)
    titled(figure, f"Predicted against measured: {name}", ["MEASURED", found.label])
    return figure


def _draw(axes: Axes, found: HeldOut, column: str) -> None:
    tokens = found.tokens
    measured, simulated = 1e3 * tokens[f"{column}_measured"], 1e3 * tokens[f"{column}_simulated"]
    for first, last in spans(tokens["fitted"]):
        ground: dict[str, Any] = {"color": PART_COLOURS["compute"], "alpha": 0.22, "lw": 0}
        axes.axvspan(first - 0.5, last + 0.5, **ground)
        if column == "wall_s":
            where = (first - 0.5, 0.02)
            axes.annotate(" fitted", where, xycoords=("data", "axes fraction"), fontsize=SMALL)
    axes.plot(tokens["token"], measured, color=LABEL_COLOURS["MEASURED"], marker="o", ms=3,
              label="measured")  # fmt: skip
    axes.plot(tokens["token"], simulated, color=LABEL_COLOURS[found.label], marker="o", ms=3,
              label=found.label.lower())  # fmt: skip
    known = found.known
    if known is not None:
        mean = 1e3 * float(known[f"{column}_measured"].mean())
        axes.axhline(mean, color=FAINT, lw=1.2, ls="--", label="mean of the fitted tokens")
    if measured.max() > WIDE * measured.min() > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis, (1, 2, 5))
    else:
        axes.set_ylim(bottom=0)
    axes.margins(x=0.01)


def spans(chosen: pd.Series) -> list[tuple[int, int]]:
    """First and last index of each stretch of true values."""
    groups = (chosen != chosen.shift()).cumsum()
    found = [group.index for _, group in chosen.groupby(groups) if group.iloc[0]]
    return [(int(index[0]), int(index[-1])) for index in found]
