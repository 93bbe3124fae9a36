"""Hit rate over cache size."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from offsim.report.style import FAINT, INK, new_figure, themed, titled

_COLOURS = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#ca9161", "#56b4e9", "#949494", "#d55e00")


@themed
def hit_rate_figure(table: pd.DataFrame, trace: str, experts: int) -> Figure:
    """Hit rates in decoding over the slots of a layer.

    Args:
        table: a row a number of slots: `slots`, `working_set_ratio`, and a column a cache, 0..1.
        trace: its name, for the title.
        experts: of a layer.
    """
    figure = new_figure(4.6)
    axes = figure.subplots()
    names = [name for name in table.columns if name not in ("slots", "working_set_ratio")]
    colours = iter(_COLOURS)
    for name in names:
        bound = name == "belady"
        axes.plot(
            table["slots"],
            100 * table[name],
            marker="o",
            color=INK if bound else next(colours),
            ls=(0, (1, 1)) if bound else "-",
            label="belady: the bound" if bound else name,
        )
    axes.plot(table["slots"], 100 * table["slots"] / experts, color=FAINT, lw=1, label="by chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(table["slots"])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"slots of a layer, of {experts} experts")
    axes.set_ylabel("hit rate in decoding, %")
    axes.set_ylim(-2, 102)
    axes.legend(loc="lower right")
    titled(figure, f"How much cache {trace} needs", ["SIMULATED"])
    return figure
