"""Figures of a sensitivity: divergence by place and bound, and sums of terms against the truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import FLOOR, Cell, Joint, Values
from offsim.codec.bounds import Bound
from offsim.policy.bounds import MATRICES
from offsim.report.style import FAINT, INK, SMALL, new_figure, plain_log, themed, titled
from offsim.report.text import bound_text, percent

MATRIX_COLOURS = dict(zip(MATRICES, ("#0173b2", "#56b4e9", "#de8f05"), strict=True))
VARIED_COLOURS = {
    "layers": "#0173b2",
    "matrices": "#de8f05",
    "experts": "#029e73",
    "codecs": "#cc78bc",
}
MOST_CELLS = 200
"""Up to which the loss of every expert is written in its cell."""
_MARGIN = 1.4


def figures(found: Sensitivity) -> dict[str, Figure]:
    """The figures for which there are numbers, by the name of their file."""
    made = {"layers": layers_figure(found)}
    if any(cell.place.matrix for cell in found.cells):
        made["matrices"] = matrices_figure(found)
    if any(cell.place.expert is not None for cell in found.cells):
        made["experts"] = experts_figure(found)
    if found.additivity is not None:
        made["joints"] = joints_figure(found)
    return made


@themed
def layers_figure(found: Sensitivity) -> Figure:
    """Divergence of each layer at each bound, as a heat map and as the curves of the model."""
    layers, rungs = found.model.layers, found.ladder
    kl = np.full((layers, len(rungs)), np.nan)
    for cell in _whole_layers(found):
        if cell.bound.value in rungs:
            kl[cell.place.layer, rungs.index(cell.bound.value)] = cell.kl.mean
    figure = new_figure(float(np.clip(1.9 + 0.33 * layers, 4.2, 9.0)))
    heat, curves = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.6, 1]})
    _heat(heat, kl, np.log10(np.maximum(kl, FLOOR)))
    names = [bound_text(value) for value in rungs]
    heat.set_xticks(np.arange(len(rungs)) + 0.5, names, rotation=0)
    heat.set_yticks(np.arange(layers) + 0.5, range(layers), rotation=0)
    heat.set_xlabel(f"error bound, {found.kind}")
    heat.set_ylabel("layer")
    heat.set_title("KL of the next token, nats (MEASURED)")
    fine = np.geomspace(rungs[0], rungs[-1], 100)
    losses = found.losses(fine.tolist())
    for layer, colour in enumerate(sns.color_palette("viridis", layers)):
        curves.plot(fine, losses[layer, :, 0], color=colour, lw=1.3)
        curves.fill_between(fine, *losses[layer, :, 1:].T, color=colour, alpha=0.12, lw=0)
        points = np.maximum(kl[layer], FLOOR)
        curves.plot(rungs, points, color=colour, marker="o", ms=4, ls="none", label=str(layer))
    curves.set_xscale("log")
    curves.set_yscale("log")
    curves.minorticks_off()
    curves.set_xticks(rungs, names)
    curves.set_xlabel(f"error bound, {found.kind}")
    curves.set_title(f"Points MEASURED, lines ESTIMATED ({found.terms.curve})")
    curves.legend(title="layer", ncols=1 + (layers - 1) // 6)
    titled(figure, _layers_title(found), ["MEASURED", "ESTIMATED"])
    return figure


def _layers_title(found: Sensitivity) -> str:
    fallen = [rise.layer for rise in found.rises if rise.falls]
    what = f"Loss by layer under {found.source}"
    if not fallen:
        return f"{what} rises with the bound in every layer"
    return f"{what}: in {len(fallen)} of {len(found.rises)} layers it falls with the bound"


@themed
def matrices_figure(found: Sensitivity) -> Figure:
    """Divergence when one matrix of all experts of a layer has the error, as bars, with 95 %."""
    cells = [cell for cell in found.cells if cell.place.matrix is not None]
    bounds = sorted({cell.bound for cell in cells}, key=lambda bound: bound.value)
    figure = new_figure(3.9)
    panels: Sequence[Axes] = figure.subplots(1, len(bounds), squeeze=False)[0]
    for axes, bound in zip(panels, bounds, strict=True):
        for number, name in enumerate(MATRICES):
            here = [c for c in cells if c.place.matrix == name and c.bound == bound]
            _bars(axes, here, number, MATRIX_COLOURS[name])
        axes.set_title(f"{found.kind} {bound_text(bound.value)}")
        axes.set_xlabel("layer")
        axes.set_xticks(range(found.model.layers))
        axes.grid(visible=False, axis="x")
    panels[0].set_ylabel("KL of the next token, nats")
    handles = [Patch(color=colour, label=name) for name, colour in MATRIX_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    titled(figure, _matrix_title(cells, bounds[len(bounds) // 2]), ["MEASURED"])
    return figure


def _bars(axes: Axes, cells: Sequence[Cell], number: int, colour: str) -> None:
    """Bars of one matrix beside those of the others."""
    width = 0.27
    at = [cell.place.layer + (number - 1) * width for cell in cells]
    means = np.array([cell.kl.mean for cell in cells])
    ends = np.array([[cell.kl.low, cell.kl.high] for cell in cells]).T
    # a mean may lie outside its interval, and matplotlib refuses a negative length
    spread = np.maximum([means - ends[0], ends[1] - means], 0)
    lines: dict[str, Any] = {"lw": 1, "ecolor": INK}
    axes.bar(at, means, width, color=colour, lw=0, yerr=spread, error_kw=lines)


def _matrix_title(cells: Sequence[Cell], bound: Bound) -> str:
    sums = {
        name: sum(c.kl.mean for c in cells if c.place.matrix == name and c.bound == bound)
        for name in MATRICES
    }
    total = sum(sums.values())
    shares = ", ".join(f"{name} {percent(part / total)}" for name, part in sums.items())
    return f"Loss by matrix, summed over layers at {bound}: {shares}"


@themed
def experts_figure(found: Sensitivity) -> Figure:
    """Divergence when one expert has the error, as a heat map; empty where it was not measured."""
    cells = [cell for cell in found.cells if cell.place.expert is not None]
    kl = np.full((found.model.layers, found.model.experts), np.nan)
    for cell in cells:
        kl[cell.place.layer, cell.place.expert] = cell.kl.mean
    figure = new_figure(float(np.clip(1.7 + 0.33 * found.model.layers, 3.4, 9.0)))
    axes: Axes = figure.subplots()
    _heat(axes, kl, kl, annotated=kl.size <= MOST_CELLS)
    axes.set_xlabel("expert")
    axes.set_ylabel("layer")
    axes.set_title(f"KL of the next token, nats, at {cells[0].bound}")
    losses = np.sort([max(cell.kl.mean, 0.0) for cell in cells])[::-1]
    half = int(np.searchsorted(np.cumsum(losses), losses.sum() / 2)) + 1
    title = f"Half of the loss of single experts comes from {half} of {len(cells)}"
    titled(figure, title, ["MEASURED"])
    return figure


@themed
def joints_figure(found: Sensitivity) -> Figure:
    """Predicted over measured divergence of held-out injections, and what it did to accuracy."""
    judged = found.additivity
    assert judged is not None
    figure = new_figure(5.2)
    scatter, drop = figure.subplots(1, 2)
    shown = [joint for joint in found.joints if joint.kl.mean > FLOOR]
    values = [value for joint in shown for value in (joint.kl.mean, joint.predicted.mean)]
    ends = np.array([min(values) / _MARGIN, max(values) * _MARGIN])
    inside = (1 - judged.tolerance) * ends, (1 + judged.tolerance) * ends
    scatter.fill_between(ends, *inside, color="#d9d9d9", lw=0, zorder=0.5)
    scatter.plot(ends, ends, color=FAINT, lw=1, zorder=1)
    for joint in shown:
        _joint(scatter, joint, joint.predicted.mean)
        if joint.ica_drop is not None:
            low, high = 100 * joint.ica_drop.low, 100 * joint.ica_drop.high
            colour = VARIED_COLOURS[joint.varied]
            drop.plot([joint.kl.mean] * 2, [low, high], color=colour, lw=1, alpha=0.5)
            _joint(drop, joint, 100 * joint.ica_drop.mean)
    for axes in (scatter, drop):
        axes.set_xscale("log")
        axes.set_xlim(*ends)
        plain_log(axes.xaxis, (1,))
        axes.set_xlabel("measured KL, nats a token")
    scatter.set_yscale("log")
    scatter.set_ylim(*ends)
    plain_log(scatter.yaxis, (1,))
    scatter.set_ylabel("predicted KL: sum of terms (ESTIMATED)")
    scatter.set_title(f"|error| {percent(judged.median)} median, {percent(judged.worst)} worst")
    drop.axhline(0, color=FAINT, lw=1)
    drop.set_ylabel("drop of ICA, percentage points, 95 %")
    drop.set_title(f"What that did to {found.sample.items} items (MEASURED)")
    handles: list[Any] = [
        Line2D([], [], marker="o", color=colour, ls="none", label=_varied(name))
        for name, colour in VARIED_COLOURS.items()
        if any(joint.varied == name for joint in shown)
    ]
    handles.append(Patch(color="#d9d9d9", label=f"within {percent(judged.tolerance)}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    titled(figure, _joints_title(found), ["MEASURED", "ESTIMATED"])
    return figure


def _joint(axes: Axes, joint: Joint, height: float) -> None:
    style: dict[str, Any] = {"mec": "white", "mew": 0.6, "markersize": 7, "ls": "none"}
    axes.plot(joint.kl.mean, height, marker="o", color=VARIED_COLOURS[joint.varied], **style)


def _varied(name: str) -> str:
    return "bounds and codecs by layers" if name == "codecs" else f"bounds by {name}"


def _joints_title(found: Sensitivity) -> str:
    judged = found.additivity
    assert judged is not None
    if not judged.holds_up_to:
        near = f"{judged.within:.0%} of sums are within {judged.tolerance:.0%}"
        return f"{judged.joints} joint injections: there is no size up to which {near}"
    return f"{judged.joints} joint injections: losses add up until a KL of {judged.holds_up_to:.2g}"


def _whole_layers(found: Sensitivity) -> list[Cell]:
    return [c for c in found.cells if c.place.matrix is None and c.place.expert is None]


def _heat(axes: Axes, values: Values, shades: Values, annotated: bool = True) -> None:
    """Values [rows, columns] in cells of one hue, as dark as the shades [rows, columns] are high.

    A cell without a value, NaN, stays empty.
    """
    sns.heatmap(
        shades,
        ax=axes,
        cmap="Blues",
        cbar=False,
        annot=np.vectorize("{:.2g}".format)(values) if annotated else False,
        fmt="",
        annot_kws={"fontsize": SMALL - 1},
        mask=np.isnan(values),
        linewidths=1,
    )
    axes.tick_params(length=0)
