"""The figures of the page to decide by."""

import numpy as np
import seaborn as sns
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from offsim.policy.bounds import MATRICES
from offsim.report.decision_findings import GOALS
from offsim.report.style import (
    FAINT,
    INK,
    codec_colour,
    new_figure,
    plain_log,
    themed,
    titled,
)
from offsim.report.text import bound_text, form_order, form_text
from offsim.study.optimize.around import Around
from offsim.study.optimize.proof_file import Kind, Proof

MARKERS: dict[Kind, str] = {
    "uniform": "o",
    "zones": "s",
    "optimised": "*",
    "adaptive": "^",
    "other": "D",
    "raw": "X",
}
SHAPES: dict[Kind, str] = {
    "optimised": "the answer",
    "uniform": "one bound",
    "zones": "three zones of layers",
    "adaptive": "bounds by the router's weight",
    "other": "other codecs",
}
SMALLEST = 8.0
"""Font size of what stands beside a point, pt."""
ROUNDING_KL = 1e-9
"""Nats a token below which a loss is none but for rounding."""


def _legend(kinds: set[Kind]) -> list[Line2D]:
    """What the shapes of the points mean."""
    return [
        Line2D([], [], linestyle="none", marker=MARKERS[kind], color=INK, label=SHAPES[kind])
        for kind in SHAPES
        if kind in kinds
    ]


@themed
def frontier(proof: Proof) -> Figure:
    """Latency over loss, MEASURED; predictions are hollow."""
    figure = new_figure(4.4)
    axes = figure.subplots()
    lossy = [way for way in proof.ways if way.kl.mean > ROUNDING_KL]
    single = sorted((w for w in lossy if w.kind == "uniform"), key=lambda way: way.kl.mean)
    if single:
        axes.plot(
            [way.kl.mean for way in single],
            [1e3 * proof.latency(way).measured for way in single],
            color=FAINT,
            linewidth=1.2,
            label="single bounds",
        )
    for way in lossy:
        both, colour = proof.latency(way), codec_colour(way.codec)
        large = 15 if way.kind == "optimised" else 7
        axes.errorbar(
            way.kl.mean,
            1e3 * both.measured,
            xerr=[[way.kl.mean - max(way.kl.low, way.kl.mean / 10)], [way.kl.high - way.kl.mean]],
            fmt=MARKERS[way.kind],
            markersize=large,
            color=colour,
            markeredgecolor=INK if way.kind == "optimised" else colour,
            zorder=3,
        )
        if way.kl_estimated is not None and way.kl_estimated.mean > 0:
            axes.plot(
                way.kl_estimated.mean,
                1e3 * both.simulated,
                MARKERS[way.kind],
                markersize=large,
                markerfacecolor="none",
                markeredgecolor=colour,
            )
        if way.kind in ("uniform", "other"):
            axes.annotate(
                way.name if way.bounds is None else bound_text(way.bounds.default.value),
                (way.kl.mean, 1e3 * both.measured),
                xytext=(-4, -11),
                textcoords="offset points",
                ha="right",
                fontsize=SMALLEST,
                color=INK,
            )
    for way in proof.ways:
        if way.kind == "raw":
            level = 1e3 * proof.latency(way).measured
            axes.axhline(level, color=codec_colour("raw"), linestyle="--", linewidth=1)
            axes.annotate(
                "no compression",
                (0.99, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
                fontsize=SMALLEST,
            )
    axes.axvline(proof.nats, color=FAINT, linestyle=":", linewidth=1)
    axes.annotate(
        "budget",
        (proof.nats, 0),
        xycoords=("data", "axes fraction"),
        xytext=(3, 4),
        textcoords="offset points",
        fontsize=SMALLEST,
        color=FAINT,
    )
    axes.set(xscale="log", xlabel="loss: KL, nats a token", ylabel=f"{GOALS[proof.goal]}, ms")
    plain_log(axes.xaxis, subs=(1, 3))
    handles = _legend({way.kind for way in lossy})
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    titled(
        figure,
        "What each way takes and loses: filled is measured, hollow is predicted",
        ["MEASURED", "SIMULATED", "ESTIMATED"],
    )
    return figure


@themed
def places(proof: Proof) -> Figure:
    """How every place of the answer is stored."""
    answer = proof.answer
    assert answer.bounds is not None
    layers, experts = proof.model.layers, proof.model.experts
    used, at = answer.bounds.table(layers, experts)
    ordered = sorted(range(len(used)), key=lambda number: form_order(used[number]))
    names = [form_text(used[number]) for number in ordered]
    values = np.argsort(ordered)[at]  # [layers, experts, 3] places in that order
    shown, rows = values[:, :1, 0].T, ["all experts"]
    if proof.by == "expert":
        shown, rows = values[:, :, 0].T, [str(one) for one in range(experts)]
    if proof.by == "matrix":
        shown, rows = values[:, 0].T, list(MATRICES)
    figure = new_figure(1.5 + 0.28 * len(rows))
    axes = figure.subplots()
    palette = ListedColormap(sns.color_palette("cividis", len(names)).as_hex())
    last = len(names) - 0.5
    image = axes.imshow(shown, aspect="auto", cmap=palette, vmin=-0.5, vmax=last)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(layers), [str(one) for one in range(layers)])
    axes.set_xlabel("layer")
    axes.grid(visible=False)
    if layers <= 32:
        for (row, layer), number in np.ndenumerate(shown):
            axes.text(
                layer,
                row,
                names[number],
                ha="center",
                va="center",
                fontsize=SMALLEST,
                color="white" if 2 * number < len(names) - 1 else INK,
            )
    bar = figure.colorbar(image, ax=axes, fraction=0.03)
    bar.set_ticks(range(len(names)), labels=names)
    bar.minorticks_off()
    what = "codec or bound" if answer.bounds.codecs else "bound"
    titled(figure, f"The {what} of each {proof.by}", ["ESTIMATED"])
    return figure


@themed
def surroundings(proof: Proof, around: Around) -> Figure:
    """How far each figure of the machine moves the answer, and who wins on other machines."""
    figure = new_figure(5.0)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
    now = 1e3 * around.now_s
    for row, swing in enumerate(reversed(around.swings)):
        for seconds, colour in ((swing.less_s, "#56b4e9"), (swing.more_s, "#d55e00")):
            left.barh(row, 1e3 * seconds - now, left=now, color=colour, height=0.6)
    left.set_yticks(range(len(around.swings)), [one.figure for one in reversed(around.swings)])
    left.axvline(now, color=INK, linewidth=1)
    left.set(xlabel=f"{GOALS[proof.goal]}, ms", title="Blue: less, red: more")
    winners = around.winners
    names = sorted({name for row in winners.names for name in row})
    at = np.array([[names.index(name) for name in row] for row in winners.names])
    palette = ListedColormap(sns.color_palette("colorblind", len(names)).as_hex())
    right.imshow(at, aspect="auto", cmap=palette, vmin=-0.5, vmax=len(names) - 0.5, alpha=0.55)
    for place, share in np.ndenumerate(np.array(winners.gains)):
        text = f"{100 * share:.0f} %"
        right.text(place[1], place[0], text, ha="center", va="center", fontsize=SMALLEST)
    right.set_xticks(range(len(winners.slots)), [str(one) for one in winners.slots])
    right.set_yticks(range(len(at)), [f"{one / 1e6:.3g}" for one in winners.bytes_per_s])
    right.invert_yaxis()
    right.grid(visible=False)
    right.set(
        xlabel="slots of a layer",
        ylabel="link, MB/s",
        title="Fastest, and share of raw saved",
    )
    handles = [Patch(color=palette(number), alpha=0.55) for number in range(len(names))]
    right.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    titled(figure, "What the answer depends on", ["SIMULATED"])
    return figure
