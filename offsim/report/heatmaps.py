"""Figures as heat maps: accuracy by task and bound, and the use of experts in a trace."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offsim.report.style import FAINT, INK, SMALL, new_figure, themed, titled
from offsim.report.text import bound_text, percent
from offsim.trace import Trace
from offsim.trace.statistics import overlap, usage

PROSE = "prose"
"""The row of accuracy.csv that has bits a character instead of shares."""
MOST_CELLS = 400
"""Up to which the share of every expert is written in its cell."""


@themed
def accuracy_figure(accuracy: pd.DataFrame) -> Figure:
    """ICA and PIA by task and storage, raw first, and bits a character of prose below.

    Args:
        accuracy: accuracy.csv: shares 0..1 by codec, bound and task.
    """
    storages = storages_of(accuracy)
    tasks = accuracy[accuracy["task"] != PROSE]
    names = list(tasks["task"].unique())
    figure = new_figure(1.9 + 0.33 * (len(names) + 1))
    heights = {"height_ratios": [max(len(names), 1), 1]}
    grid = figure.subplots(2, 2, gridspec_kw=heights)
    columns = [f"{codec}\n{bound_text(bound)}" if bound else codec for codec, bound in storages]
    titles = {
        "ica": "ICA: right content in the right format, %",
        "pia": "PIA: right content, %",
    }
    for number, (score, title) in enumerate(titles.items()):
        axes: Axes = grid[0, number]
        shares = 100 * _table(tasks, score, names, storages)
        _heat(axes, shares, ".1f", (0, 100))
        axes.set_title(title)
        axes.set_yticks(np.arange(len(names)) + 0.5, names, rotation=0)
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=0)
        axes.tick_params(length=0)
    prose = accuracy[accuracy["task"] == PROSE]
    bits = _table(prose, "bits_a_character", [PROSE], storages)
    strip, note = grid[1]
    # One colour: bits a character are no share, and lower is better.
    sns.heatmap(
        bits, ax=strip, annot=True, fmt=".3f", cmap=["#f1f1f1"], cbar=False, linewidths=1,
        annot_kws={"fontsize": SMALL, "color": INK},
    )  # fmt: skip
    strip.set_yticks([0.5], [PROSE], rotation=0)
    strip.tick_params(length=0, labelbottom=False)
    note.set_axis_off()
    note.text(
        0.0,
        0.5,
        "prose: bits a character, lower is better",
        transform=note.transAxes,
        va="center",
        fontsize=SMALL,
    )
    items = int(tasks["items"].max()) if len(tasks) else 0
    titled(figure, f"Accuracy on {items} items a task by storage of the experts", ["MEASURED"])
    return figure


def storages_of(accuracy: pd.DataFrame) -> list[tuple[str, float]]:
    """Codecs and bounds of a table: those without a bound first, then in the table's order."""
    found = dict.fromkeys(zip(accuracy["codec"], accuracy["bound"], strict=True))
    return sorted(found, key=lambda storage: storage[1] != 0)


def _table(
    rows: pd.DataFrame, score: str, names: list[str], storages: list[tuple[str, float]]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Scores [tasks, storages] float64; NaN where there is none."""
    table = np.full((len(names), len(storages)), np.nan)
    for row in rows.to_dict("records"):
        table[names.index(row["task"]), storages.index((row["codec"], row["bound"]))] = row[score]
    return table


def _heat(
    axes: Axes,
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    form: str,
    limits: tuple[float, float],
    annotated: bool = True,
) -> None:
    """Draw values [rows, columns] in one hue, dark for much, with the value in each cell."""
    sns.heatmap(
        values,
        ax=axes,
        vmin=limits[0],
        vmax=limits[1],
        cmap="Blues",
        cbar=False,
        annot=annotated,
        fmt=form,
        annot_kws={"fontsize": SMALL},
        linewidths=1 if annotated else 0,
    )
    axes.tick_params(length=0)


@themed
def trace_figure(trace: Trace) -> Figure:
    """Share of the activations by layer and expert, and how often adjacent tokens share experts.

    Args:
        trace: any, of any number of layers and experts.
    """
    counts = usage(trace)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    layers, experts = counts.shape
    figure = new_figure(float(np.clip(1.7 + 0.3 * layers, 3.2, 9.0)))
    grid = figure.subplots(1, 2, gridspec_kw={"width_ratios": [2.3, 1]})
    heat, bars = grid
    annotated = experts <= 20 and counts.size <= MOST_CELLS
    _heat(heat, shares, ".0f", (0, float(shares.max())), annotated)
    if not annotated:
        bar = figure.colorbar(heat.collections[0], ax=heat, pad=0.01, aspect=30)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    heat.set_title(f"Share of a layer's activations, % (even: {100 / experts:.1f} %)")
    every = max(1, -(-experts // 16))
    heat.set_xticks(np.arange(0, experts, every) + 0.5, range(0, experts, every), rotation=0)
    step = max(1, -(-layers // 16))
    heat.set_yticks(np.arange(0, layers, step) + 0.5, range(0, layers, step), rotation=0)
    heat.set_xlabel("expert")
    heat.set_ylabel("layer")
    shared, chance = 100 * overlap(trace), 100 * trace.top_k / experts
    bars.barh(np.arange(layers) + 0.5, shared, height=0.72, color="#58718a", lw=0)
    bars.axvline(chance, color=INK, ls="--", lw=1.2)
    bars.set_ylim(layers, 0)
    bars.set_yticks([])
    bars.grid(visible=False, axis="y")
    largest = float(np.nanmax([*shared, chance]))
    bars.set_xlim(0, min(100.0, 1.15 * largest))
    bars.set_title("Experts shared with the token before")
    bars.set_xlabel(f"% (dashed: {chance:.1f} % by chance)")
    if np.isnan(shared).all():
        bars.text(0.6 * largest, layers / 2, "no adjacent tokens", ha="center", color=FAINT)
    ratio = counts.max(axis=1) / counts.mean(axis=1)
    layer = int(ratio.argmax())
    title = f"Layer {layer} gives one expert {ratio[layer]:.1f} times its even share"
    if not np.isnan(shared).all():
        title += f"; adjacent tokens share {percent(float(np.nanmean(shared)) / 100)}"
    titled(figure, title, ["MEASURED"])
    return figure
