"""What a codec makes of its bits: error over size, beside the ideal."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from offsim.report.style import FAINT, INK, SMALL, codec_colour, new_figure, themed, titled

IDEAL_RMSE = 1 / np.sqrt(3)
"""Of an error that is uniform in [-bound, bound], in bounds."""
_DASHES = {"": "-", "plain": "--", "outlier": ":", "LORENZO_REG": "--", "INTERP_LORENZO": "-."}


@themed
def rate_distortion_figure(points: pd.DataFrame, weights: str) -> Figure:
    """Error and speed over bits a weight.

    Args:
        points: a row a codec and bound, columns of `offsim.calibration.curve.CurvePoint`.
        weights: what was compressed, for the title.
    """
    figure = new_figure(5.2)
    error, speed = figure.subplots(1, 2, width_ratios=(3, 2))
    bounded = points[points["ideal_bits"].notna()].drop_duplicates("bound").sort_values("bound")
    error.plot(
        bounded["ideal_bits"],
        bounded["bound"] * IDEAL_RMSE,
        color=INK,
        ls=(0, (1, 1)),
        label="ideal: entropy of a uniform quantiser",
    )
    for name, rows in points.groupby("codec", sort=False):
        _lines(error, speed, str(name), rows.sort_values("bits_per_weight"))
    error.set_yscale("log")
    error.yaxis.set_major_locator(LogLocator(10))
    error.set_ylabel("root mean squared error (unit of the weights)")
    error.set_title("Error")
    speed.set_yscale("log")
    speed.set_ylabel("decoding speed, of memcpy's")
    speed.set_title("Speed")
    speed.axhline(1.0, color=FAINT, lw=1, zorder=0)
    for axis in (error, speed):
        axis.set_xlabel("bits a weight")
        axis.set_xlim(left=0)
    handles, labels = error.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    titled(figure, f"Error bounds and what they cost, on {weights}", ["MEASURED"])
    return figure


def _lines(error: Axes, speed: Axes, name: str, rows: pd.DataFrame) -> None:
    """One codec in both panels; what gives the weights back exactly has no error to show."""
    kind, _, option = name.partition(":")
    colour = codec_colour(kind)
    dashes: Any = _DASHES.get(option.rpartition("=")[2], (0, (3, 1, 1, 1)))
    marker = "o" if rows["ideal_bits"].notna().any() else "D"
    style: dict[str, Any] = {"color": colour, "label": name, "ls": dashes, "marker": marker}
    lossy = rows[rows["rmse"] > 0]
    if len(lossy):
        error.plot(lossy["bits_per_weight"], lossy["rmse"], **style)
    else:
        bits = float(rows["bits_per_weight"].iloc[0])
        error.axvline(bits, **{**style, "marker": ""})
        place = (bits, 0.98)
        error.annotate(
            f"{name} ", place, xycoords=("data", "axes fraction"), ha="right", va="top",
            rotation=90, fontsize=SMALL, color=colour,
        )  # fmt: skip
    speed.plot(rows["bits_per_weight"], rows["decode_of_memcpy"], **style)
