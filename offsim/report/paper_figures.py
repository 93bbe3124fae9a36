"""Figures of the paper study. Each takes its data and returns a matplotlib Figure.

Shares are drawn in points of 100; bars and bands are intervals of 95 % over items and seeds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offsim.report.paper_data import PaperData
from offsim.report.style import (
    FAINT,
    INK,
    SMALL,
    codec_colour,
    new_figure,
    plain_log,
    themed,
    titled,
)

LEVEL_COLOURS = ("#8fb8de", "#4a86b8", "#1f4e79", "#0b2540")
"""Of levels of an error, dark for large."""
SOURCE_COLOURS = {"normal": "#b0439a", "uniform": "#4d4d4d"}
_SOURCES = {"normal": "Normal noise", "uniform": "uniform noise"}
_CHANGE = ("ica_change", "ica_change_low", "ica_change_high")
_PER_ROW = 4
Values = npt.NDArray[np.float64]
LEAST_KL = 1e-7
"""Nats a token: below it rounding shows, and a logarithmic axis ends."""


def colour_of(source: str) -> str:
    """A source of errors has one colour in every figure."""
    return SOURCE_COLOURS.get(source, codec_colour(source))


@themed
def depth_figure(data: PaperData) -> Figure:
    """Tables 6 and 7: ICA by depth and level, with the paper's own changes."""
    figure = new_figure(4.6)
    axes: Sequence[Axes] = figure.subplots(1, 2, width_ratios=(4, 3), sharey=True)
    titles = {
        "6": "All experts of one layer (table 6)",
        "7": "Most used expert of each layer of a group (table 7)",
    }
    for axis, (part, title) in zip(axes, titles.items(), strict=True):
        rows = data.part(part)
        places = list(rows["place"].unique())
        levels = sorted(rows["level"].unique())
        for number, level in enumerate(levels):
            found = rows[rows["level"] == level]
            shift = 0.16 * (number - (len(levels) - 1) / 2)
            where = np.array([places.index(place) for place in found["place"]]) + shift
            colour = LEVEL_COLOURS[min(number, len(LEVEL_COLOURS) - 1)]
            _dots(axis, where, found, colour, f"{level:.0%} of mean |w|")
            theirs = 100 * (found["paper_ica"] - found["paper_ica_before"])
            axis.plot(where, theirs, "x", color="#d55e00", ms=7, mew=2)
        axis.axhline(0, color=INK, lw=0.9)
        axis.set_xticks(range(len(places)), places)
        axis.set_xlabel("layers of the paper, scaled to this model's depth")
        axis.grid(visible=False, axis="x")
        axis.set_title(title)
        _say_if_empty(axis, rows)
    axes[0].plot([], [], "x", color="#d55e00", ms=7, mew=2, label="the paper, at the same level")
    axes[0].set_ylabel("change of ICA, points")
    handles = {
        name: handle
        for axis in (*axes[1:], axes[0])
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    titled(figure, "Normal noise by depth: this model, and the paper's", ["MEASURED"])
    return figure


@themed
def tasks_figure(data: PaperData) -> Figure:
    """Heat maps of layer and bound for each task."""
    rows = data.tasks[data.tasks["part"] == "layers"]
    whole = data.part("layers").assign(task="all tasks")
    panels = {"all tasks": whole} | {str(t): r for t, r in rows.groupby("task", sort=False)}
    layers = sorted(whole["place"].unique(), key=int)
    levels = sorted(whole["level"].unique())
    lines = -(-len(panels) // _PER_ROW)
    figure = new_figure(0.9 + lines * (0.75 + 0.2 * len(layers)))
    grid = figure.subplots(lines, _PER_ROW, squeeze=False)
    for number, axis in enumerate(grid.flat):
        if number >= len(panels):
            axis.set_axis_off()
            continue
        name, found = list(panels.items())[number]
        values = np.full((len(layers), len(levels)), np.nan)
        for row in found.to_dict("records"):
            at = (layers.index(row["place"]), levels.index(row["level"]))
            values[at] = 100 * row["ica_change"]
        sns.heatmap(
            values.round() + 0.0,  # no -0
            ax=axis, vmin=-60, vmax=0, cmap="Reds_r", cbar=False, annot=True, fmt=".0f",
            annot_kws={"fontsize": SMALL - 1.5}, linewidths=0.6,
        )  # fmt: skip
        axis.set_title(name)
        axis.tick_params(length=0)
        first, last = number % _PER_ROW == 0, number + _PER_ROW >= len(panels)
        axis.set_yticks(np.arange(len(layers)) + 0.5, layers if first else [], rotation=0)
        axis.set_xticks(np.arange(len(levels)) + 0.5, [f"{v:g}" for v in levels] if last else [])
        if first:
            axis.set_ylabel("layer")
        if last:
            axis.set_xlabel("bound, sigma")
    title = "Change of ICA, points, under uniform noise in all experts of one layer"
    titled(figure, title, ["MEASURED"])
    return figure


@themed
def parts_figure(data: PaperData) -> Figure:
    """Matrices, and hot against cold experts: ICA and divergence by bound."""
    rows = pd.concat([data.part("matrices"), data.part("experts")])
    places = list(rows["place"].unique())
    levels = sorted(rows["level"].unique())
    figure = new_figure(4.3)
    axes: Sequence[Axes] = figure.subplots(1, 2)
    ica, kl = axes
    width = 0.8 / max(len(levels), 1)
    for number, level in enumerate(levels):
        found = rows[rows["level"] == level]
        where = np.array([places.index(place) for place in found["place"]])
        where = where + width * (number - (len(levels) - 1) / 2)
        colour = LEVEL_COLOURS[min(number, len(LEVEL_COLOURS) - 1)]
        lost = -100 * found[["ica_change", "ica_change_high", "ica_change_low"]].to_numpy(float)
        known = found[["kl", "kl_low", "kl_high"]].to_numpy(float)
        for axis, values in ((ica, lost), (kl, np.maximum(known, LEAST_KL))):
            spread = np.abs(values[:, 1:] - values[:, :1]).T
            axis.bar(where, values[:, 0], width, color=colour, label=f"{level:g} sigma", lw=0)
            axis.errorbar(where, values[:, 0], spread, fmt="none", ecolor=INK, elinewidth=1)
    kl.set_yscale("log")
    ica.set_title("ICA lost, points")
    kl.set_title("Divergence (KL) from the model as it is, nats a token")
    for axis in axes:
        axis.set_xticks(range(len(places)), places)
        axis.grid(visible=False, axis="x")
    handles, names = ica.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    title = "Uniform noise in one matrix of all experts, and in the more and less used half"
    titled(figure, title, ["MEASURED"])
    return figure


@themed
def rate_figure(data: PaperData) -> Figure:
    """Divergence and ICA over bits a weight: codecs, an ideal code, and rounding."""
    rows = pd.concat([data.part("codecs", "equal bound"), data.part("codecs", "equal size")])
    rows = rows[rows["bits"].notna()].drop_duplicates(["source", "bound"])
    figure = new_figure(4.8)
    axes: Sequence[Axes] = figure.subplots(1, 2)
    for source, found in rows.groupby("source", sort=False):
        name = str(source)
        points = found.sort_values("bits")
        single = name.startswith("rtn")
        label = (
            "uniform noise, at the bits of an ideal code (ESTIMATED)" if name == "uniform" else name
        )
        for axis, score in zip(axes, ("kl", "ica"), strict=True):
            values = _ends(points, score)
            style: dict[str, Any] = {
                "color": colour_of(name),
                "marker": "D" if single else "o",
                "label": label,
            }
            if single:
                spread = np.abs(values[:, 1:] - values[:, :1]).T
                axis.errorbar(points["bits"], values[:, 0], spread, ls="none", **style)
                continue
            axis.plot(points["bits"], values[:, 0], ls="--" if name == "uniform" else "-", **style)
            axis.fill_between(
                points["bits"], values[:, 1], values[:, 2], color=colour_of(name), alpha=0.15, lw=0
            )
    kl, ica = axes
    kl.set_yscale("log")
    kl.set_title("Divergence (KL), nats a token")
    ica.set_title("ICA, %")
    for axis in axes:
        axis.set_xlabel("bits a weight")
    handles, names = kl.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    title = "What bits buy: error-bounded codecs and rounding, all experts"
    titled(figure, title, ["MEASURED", "ESTIMATED"])
    return figure


@themed
def real_figure(data: PaperData) -> Figure:
    """Noise and real codecs at equal bounds: in all experts, and in those of one layer."""
    figure = new_figure(4.6)
    kl, ica, layer = figure.subplots(1, 3)
    rows = data.part("codecs", "equal bound")
    for source, found in rows.groupby("source", sort=False):
        name, points = str(source), found.sort_values("level")
        label, colour = _SOURCES.get(name, name), colour_of(str(source))
        for axis, score in ((kl, "kl"), (ica, "ica")):
            values = _ends(points, score)
            axis.plot(points["level"], values[:, 0], color=colour, marker="o", label=label)
            axis.fill_between(
                points["level"], values[:, 1], values[:, 2], color=colour, alpha=0.15, lw=0
            )
    for axis in (kl, ica):
        axis.set_xscale("log")
        plain_log(axis.xaxis, (1, 3, 5, 8))
        axis.set_xlabel("bound, share of mean |w|")
    kl.set_yscale("log")
    kl.set_title("All experts: KL, nats a token")
    ica.set_title("All experts: ICA, %")
    single = data.part("real")
    places = list(single["place"].unique())
    sources = list(single["source"].unique())
    for number, source in enumerate(sources):
        found = single[single["source"] == source]
        where = np.array([places.index(place) for place in found["place"]])
        shift = 0.16 * (number - (len(sources) - 1) / 2)
        _dots(layer, where + shift, found, colour_of(source), _SOURCES.get(source, source))
    layer.set_xticks(range(len(places)), places)
    layer.grid(visible=False, axis="x")
    level = float(single["level"].iloc[0]) if len(single) else np.nan
    layer.set_title(f"One layer at {level:.0%}: change of ICA" if len(single) else "One layer")
    for axis, found in ((kl, rows), (ica, rows), (layer, single)):
        _say_if_empty(axis, found)
    handles, names = (kl if len(rows) else layer).get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=max(len(names), 1))
    titled(figure, "Injected noise and what codecs really do, at equal bounds", ["MEASURED"])
    return figure


def _dots(axis: Axes, where: Values, rows: pd.DataFrame, colour: str, label: str) -> None:
    """Changes of ICA with their intervals."""
    values = 100 * rows[list(_CHANGE)].to_numpy(float)
    spread = np.abs(values[:, 1:] - values[:, :1]).T
    axis.errorbar(
        where, values[:, 0], spread, fmt="o", color=colour, label=label, ms=5, elinewidth=1.6
    )


def _ends(rows: pd.DataFrame, score: str) -> Values:
    """Value, low and high end [rows, 3] float64: of `kl` nats a token, of `ica` percent."""
    if score == "kl":
        kl: Values = np.maximum(rows[["kl", "kl_low", "kl_high"]].to_numpy(float), LEAST_KL)
        return kl
    before = (rows["ica"] - rows["ica_change"]).to_numpy(float)[:, None]
    ends: Values = 100 * (before + rows[list(_CHANGE)].to_numpy(float))
    return ends


def _say_if_empty(axis: Axes, rows: pd.DataFrame) -> None:
    if not len(rows):
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=FAINT)
        axis.set_xticks([])
