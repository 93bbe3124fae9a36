"""Figures of curves and of policies. Each takes tables of a study and returns a matplotlib Figure.

The columns are those of the CSV tables of a study (`offsim.report.data`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from offsim.report.style import (
    FAINT,
    INK,
    PART_COLOURS,
    SMALL,
    codec_colour,
    new_figure,
    plain_log,
    themed,
    titled,
)
from offsim.report.text import bound_text, link_text, milliseconds, percent, policies

NEAR = 0.05
"""Relative error of a prediction up to which it counts as near, a fraction."""
_MARKERS = "osD^vPX*"
_MARGIN = 1.2
_COMPUTE_COLOURS = {
    "first": "#ca9161",
    "dense": "#1f3b73",
    "dispatch": "#029e73",
    "expert": "#b0439a",
    "head": "#333333",
}


@themed
def calibration_figure(curve: pd.DataFrame, codecs: pd.DataFrame) -> Figure:
    """Size and decoding speed of codecs over their bound.

    Args:
        curve: curve.csv: ratio, bits a weight and bytes/s by codec and absolute bound.
        codecs: codecs.csv: the same at the bounds of the policies, MB/s.
    """
    curve = curve[curve["ideal_bits"].notna()]  # where a bound was asked for
    figure = new_figure(4.6)
    axes: Sequence[Axes] = figure.subplots(1, 2)
    size, speed = axes
    for codec, rows in curve.groupby("codec", sort=False):
        points = rows.sort_values("bound")
        style: dict[str, Any] = {"color": codec_colour(str(codec)), "marker": "o", "label": codec}
        size.plot(points["bound"], points["ratio"], **style)
        speed.plot(points["bound"], points["decode_bytes_per_s"] / 1e6, **style)
    for row in codecs.to_dict("records"):
        colour = codec_colour(row["codec"])
        if row["bound"]:
            mark: dict[str, Any] = {"marker": "D", "mfc": "white", "mec": colour, "ls": "none"}
            size.plot(row["bound"], row["ratio_bf16"], markersize=8, **mark)
            speed.plot(row["bound"], row["decode_MB_per_s"], markersize=8, **mark)
        else:
            speed.axhline(
                row["decode_MB_per_s"],
                color=colour,
                ls="--",
                label=f"{row['codec']}, as in the runs",
            )
    bits = float((curve["bits_per_weight"] * curve["ratio"]).median())
    for axis in (size, speed):
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(LogLocator(base=2, numticks=20))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bound_text(value)))
        axis.set_xlabel("absolute error bound (unit of the weights)")
        axis.set_ylim(bottom=0)
    size.set_title("Size")
    size.tick_params(axis="y", length=0)
    size.set_ylabel(f"compression ratio against {'bf16' if round(bits) == 16 else 'stored dtype'}")
    low, high = curve["bits_per_weight"].min(), curve["bits_per_weight"].max()
    ticks = [b for b in (1, 1.5, 2, 3, 4, 6, 8, 12, 16) if 0.8 * low <= b <= 1.2 * high]
    second = size.twinx()
    second.set_ylim(size.get_ylim())
    second.set_yticks([bits / tick for tick in ticks], [f"{tick:g}" for tick in ticks])
    second.set_ylabel("bits a weight")
    second.grid(visible=False)
    second.tick_params(axis="y", length=0)
    speed.set_title("Decoding, one thread")
    speed.set_ylabel("MB/s of decoded weights")
    handles, names = speed.get_legend_handles_labels()
    handles.append(Line2D([], [], marker="D", mfc="white", mec=INK, ls="none", markersize=8))
    names.append("the model's experts, as in the runs")
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    titled(figure, _size_range(curve), ["MEASURED"])
    return figure


def _size_range(curve: pd.DataFrame) -> str:
    low, high = curve["bound"].min(), curve["bound"].max()
    first = curve.loc[curve["bound"] == low, "ratio"]
    last = curve.loc[curve["bound"] == high, "ratio"]
    return (
        f"Weights shrink {first.min():.1f} to {first.max():.1f} times at a bound of "
        f"{bound_text(low)}, {last.min():.1f} to {last.max():.1f} times at {bound_text(high)}"
    )


@themed
def compute_figure(compute: pd.DataFrame) -> Figure:
    """Time of the parts of compute over the tokens that they serve, with a band p10 to p90.

    Args:
        compute: compute.csv: ms by part and tokens.
    """
    figure = new_figure(4.2)
    axes: Axes = figure.subplots()
    for number, (part, rows) in enumerate(compute.groupby("part", sort=False)):
        points = rows.sort_values("tokens")
        colour = _COMPUTE_COLOURS.get(str(part), FAINT)
        marker = _MARKERS[number % len(_MARKERS)]
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": str(part)}
        if len(points) > 1:
            axes.plot(points["tokens"], points["ms"], **style)
            bounds = points["p10_ms"], points["p90_ms"]
            axes.fill_between(points["tokens"], *bounds, color=colour, alpha=0.18, lw=0)
        else:
            # a mean may lie outside its band, and matplotlib refuses a negative length
            spread = [
                (points["ms"] - points["p10_ms"]).clip(lower=0),
                (points["p90_ms"] - points["ms"]).clip(lower=0),
            ]
            axes.errorbar(
                points["tokens"], points["ms"], yerr=spread, capsize=3, ls="none", **style
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log(axes.xaxis, (1, 2, 5))
    plain_log(axes.yaxis, (1, 2, 5))
    axes.set_xlabel("tokens in the step (for an expert: tokens that it serves)")
    axes.set_ylabel("ms, mean of the middle half; band p10 to p90")
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = [str(part) for part in compute["part"].unique()]  # matplotlib puts error bars last
    handles = [named[part] for part in order]
    side: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    axes.legend(handles, order, title="part of compute", **side)
    titled(figure, _at_one_token(compute), ["MEASURED"])
    return figure


def _at_one_token(compute: pd.DataFrame) -> str:
    one = compute[compute["tokens"] == 1].set_index("part")["ms"]
    if "dense" not in one or "expert" not in one:
        return "Compute by the number of tokens"
    dense, expert = float(one["dense"]), float(one["expert"])
    return f"For one token a layer's dense part takes {dense:.3f} ms and an expert {expert:.3f} ms"


def _rows(check: pd.DataFrame) -> tuple[list[str], dict[str, float]]:
    """The policies in their order and the height of each one's row, with gaps between storages."""
    named = policies(check)
    storages = list(zip(check["codec"], check["bound"], strict=True))
    places: dict[str, float] = {}
    height, last = 0.0, storages[0]
    for name, storage in zip(named, storages, strict=True):
        if name in places:
            continue
        height += 0.45 if storage != last else 0.0
        places[name], last = height, storage
        height += 1.0
    return named, places


def _panels(
    check: pd.DataFrame, places: dict[str, float], inches: float, across_label: str
) -> tuple[Figure, dict[float, Axes]]:
    """A panel a link speed (MB/s), with a row of so many inches a policy."""
    links = sorted(check["link_MB_per_s"].unique())
    across = min(len(links), 3)
    down = -(-len(links) // across)
    tall = inches * (max(places.values()) + 1)
    figure = new_figure(1.2 + down * (tall + 0.75))
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[len(links) :]:
        axes.set_visible(False)
    for link, axes in zip(links, grid, strict=False):
        axes.set_title(f"link at {link_text(link)}")
        axes.set_yticks(list(places.values()), list(places))
        axes.set_ylim(max(places.values()) + 0.65, -0.65)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(across_label)
    return figure, dict(zip(links, grid, strict=False))


@themed
def policies_figure(check: pd.DataFrame) -> Figure:
    """Measured TPOT of every policy as bars, simulated as markers, a panel a link speed.

    Args:
        check: check.csv; `tpot_*` in seconds.
    """
    named, places = _rows(check)
    figure, panels = _panels(check, places, 0.29, "TPOT, ms a token")
    reach = 1e3 * float(check[["tpot_measured", "tpot_simulated"]].max().max())
    for name, row in zip(named, check.to_dict("records"), strict=True):
        axes, place = panels[row["link_MB_per_s"]], places[name]
        measured, simulated = 1e3 * row["tpot_measured"], 1e3 * row["tpot_simulated"]
        axes.barh(place, measured, height=0.78, color=codec_colour(row["codec"]), lw=0)
        axes.plot(simulated, place, marker="D", mfc="white", mec="black", markersize=5.5, ls="none")
        shown = f"{milliseconds(row['tpot_measured'])}"
        end = max(measured, simulated) + 0.02 * reach
        axes.text(end, place, shown, va="center", fontsize=SMALL)
    next(iter(panels.values())).set_xlim(0, 1.17 * reach)
    handles: list[Any] = [
        Patch(color=codec_colour(c), label=f"{c}, measured") for c in check["codec"].unique()
    ]
    handles.append(
        Line2D([], [], marker="D", mfc="white", mec="black", ls="none", label="simulated")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    best = int(check["tpot_measured"].argmin())
    fastest = f"{named[best]}, at {link_text(check['link_MB_per_s'].iloc[best])}"
    shortest = milliseconds(check["tpot_measured"].iloc[best])
    titled(figure, f"Fastest measured: {fastest}: {shortest} ms a token", ["MEASURED", "SIMULATED"])
    return figure


@themed
def breakdown_figure(breakdown: pd.DataFrame, check: pd.DataFrame) -> Figure:
    """Where the time of a decode step goes: stacked bars, measured above simulated.

    Args:
        breakdown: breakdown.csv: seconds a token by scenario, label and part.
        check: check.csv, whose rows are the scenarios in the same order.
    """
    named, places = _rows(check)
    figure, panels = _panels(check, places, 0.4, "time of a decode step, ms")
    scenarios = {name: number for number, name in enumerate(breakdown["scenario"].unique())}
    found = [part for part in PART_COLOURS if part in set(breakdown["part"])]
    parts = [*found, *(p for p in breakdown["part"].unique() if p not in PART_COLOURS)]
    ends: dict[tuple[int, str], float] = {}
    for part in parts:
        rows = breakdown[breakdown["part"] == part]
        for row in rows.to_dict("records"):
            number, label = scenarios[row["scenario"]], row["label"]
            start = ends.get((number, label), 0.0)
            simulated = label != "MEASURED"
            panels[check["link_MB_per_s"].iloc[number]].barh(
                places[named[number]] + (0.21 if simulated else -0.21),
                1e3 * row["seconds"],
                left=start,
                height=0.38,
                color=PART_COLOURS.get(part, FAINT),
                alpha=0.75 if simulated else 1.0,
                hatch="////" if simulated else None,
                ec="white",
                lw=0,
            )
            ends[number, label] = start + 1e3 * row["seconds"]
    handles: list[Any] = [Patch(fc=PART_COLOURS.get(p, FAINT), label=p) for p in parts]
    handles.append(Patch(fc="#999999", label="above: measured"))
    handles.append(Patch(fc="#b8b8b8", ec="white", hatch="////", lw=0, label="below: simulated"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    measured = breakdown[breakdown["label"] == "MEASURED"]
    totals = measured.groupby("part", sort=False)["seconds"].sum()
    waiting = percent(float(1 - totals.get("compute", 0.0) / totals.sum()))
    title = f"Waiting for experts is {waiting} of the measured decode time"
    titled(figure, title, ["MEASURED", "SIMULATED"])
    return figure


def banded(check: pd.DataFrame, metric: str) -> "pd.Series[bool]":
    """Which rows of check.csv have a band of a metric."""
    return check[[f"{metric}_low", f"{metric}_high"]].notna().all(axis=1)


@themed
def predicted_figure(check: pd.DataFrame) -> Figure:
    """Simulated over measured TPOT and TTFT, with the identity and a band of 5 % around it.

    A bar shows the 90 % band of a prediction where it has one.

    Args:
        check: check.csv; `tpot_*` and `ttft_*` in seconds.
    """
    figure = new_figure(5.4)
    axes: Sequence[Axes] = figure.subplots(1, 2)
    slots = sorted(check["slots"].unique())
    markers = {count: _MARKERS[n % len(_MARKERS)] for n, count in enumerate(slots)}
    for axis, metric in zip(axes, ("tpot", "ttft"), strict=True):
        columns = [f"{metric}_measured", f"{metric}_simulated"]
        points = 1e3 * check[columns]  # a band may go beyond the edge
        ends = np.array([points.min().min() / _MARGIN, points.max().max() * _MARGIN])
        band: dict[str, Any] = {"color": "#d9d9d9", "lw": 0, "zorder": 0.5}
        axis.fill_between(ends, (1 - NEAR) * ends, (1 + NEAR) * ends, **band)
        axis.plot(ends, ends, color=FAINT, lw=1, zorder=1)
        for row in check[banded(check, metric)].to_dict("records"):
            axis.plot(
                [1e3 * row[f"{metric}_measured"]] * 2,
                [1e3 * row[f"{metric}_{end}"] for end in ("low", "high")],
                color=codec_colour(row["codec"]),
                lw=1.2,
                alpha=0.6,
                marker="_",
                markersize=6,
                zorder=1.5,
            )
        for row in check.to_dict("records"):
            axis.plot(
                *(1e3 * row[column] for column in columns),
                marker=markers[row["slots"]],
                color=codec_colour(row["codec"]),
                mec="white",
                mew=0.6,
                markersize=8,
                ls="none",
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(*ends)
        axis.set_ylim(*ends)
        axis.set_aspect("equal")
        plain_log(axis.xaxis)
        plain_log(axis.yaxis)
        error = check[f"{metric}_error"].abs()
        axis.set_title(
            f"{metric.upper()}: |error| {percent(error.median())} median, "
            f"{percent(error.max())} worst"
        )
        axis.set_xlabel(f"measured {metric.upper()}, ms")
        axis.set_ylabel(f"simulated {metric.upper()}, ms")
    handles: list[Any] = [Patch(color=codec_colour(c), label=c) for c in check["codec"].unique()]
    handles += [
        Line2D([], [], marker=markers[s], color=INK, ls="none", label=f"{s:g} slots") for s in slots
    ]
    handles.append(Patch(color="#d9d9d9", label="within 5 %"))
    if banded(check, "tpot").any():
        handles.append(Line2D([], [], color=INK, lw=1.2, marker="_", label="90 % band"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    near = int((check["tpot_error"].abs() <= NEAR).sum())
    title = f"{near} of {len(check)} policies are predicted within 5 % of their measured TPOT"
    titled(figure, title, ["MEASURED", "SIMULATED"])
    return figure
