"""The page to decide by: what `offsim optimize --prove` recommends, what it buys, how surely."""

import base64
from collections import Counter
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from offsim.errors import InputError
from offsim.files import read_json, replacing, write_text
from offsim.policy.bounds import MATRICES
from offsim.report.page import PAGE, Picture
from offsim.report.style import (
    FAINT,
    INK,
    codec_colour,
    new_figure,
    plain_log,
    small_png,
    themed,
    titled,
)
from offsim.report.tables import Cell, Table
from offsim.report.templates import style_sheet, template_named
from offsim.report.text import NOTHING, bound_text, milliseconds, percent
from offsim.study.optimize.around import Around
from offsim.study.optimize.proof_file import Both, Gain, Proof, Way, gain
from offsim.units import show_bytes

PROOF = "proof.json"
"""The file of a proof in its folder."""
REMEDY = "make the folder with `offsim optimize --prove DIR`"
MARKERS = {
    "uniform": "o",
    "zones": "s",
    "optimised": "*",
    "adaptive": "^",
    "other": "D",
    "raw": "X",
}
SMALLEST = 8.0
"""Font size of what stands beside a point, pt."""
GOALS = {"tpot": "TPOT", "ttft": "TTFT"}


def write_decision(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a proof and its figures; the same file gives the same bytes.

    Args:
        folder: that `offsim optimize --prove` wrote.
        out: file of the page, by default report.html in the folder; the figures go beside it.

    Returns:
        The file of the page.

    Raises:
        InputError: the file of the proof is missing, or the page cannot be written.
        FormatError: it is not one.
    """
    path = folder / PROOF
    if not path.is_file():
        raise InputError(f"{path}: no such file; {REMEDY}")
    proof = read_json(path, Proof)
    page = out if out is not None else folder / PAGE
    pictures = {}
    drawn = {"frontier": frontier(proof), "bounds": places(proof)}
    if proof.around is not None:
        drawn["around"] = surroundings(proof, proof.around)
    for name, figure in drawn.items():
        image = small_png(figure)
        with replacing(page.parent / f"{name}.png") as partial:
            partial.write_bytes(image)
        source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
        pictures[name] = Picture(source, figure.get_suptitle())
    html = template_named("decision.html").render(
        css=style_sheet(),
        proof=proof,
        recommended=recommended(proof),
        buys=buys(proof),
        sure=sure(proof),
        figures=pictures,
        ways=ways_table(proof),
    )
    write_text(page, html)
    return page


def recommended(proof: Proof) -> list[str]:
    """What to do."""
    answer = proof.answer
    assert answer.bounds is not None
    layers, experts = proof.model.layers, proof.model.experts
    used, at = answer.bounds.table(layers, experts)
    counts = Counter(at.ravel().tolist())
    parts = [
        f"{percent(counts[number] / at.size)} of the matrices at {bound_text(bound.value)}"
        for number, bound in sorted(enumerate(used), key=lambda pair: pair[1].value)
    ]
    return [
        f"Store the experts of {proof.model.name} with {answer.codec}, a bound a {proof.by}: "
        f"{', '.join(parts)}.",
        f"It is for {proof.policy}, over a link of {proof.link_bytes_per_s / 1e6:.1f} MB/s, and "
        f"for a budget of {proof.budget}"
        + ("." if proof.budget.startswith("kl") else f", which is KL {proof.nats:.2g}."),
    ]


def buys(proof: Proof) -> list[str]:
    """What it gains and what it costs, MEASURED."""
    goal, answer = GOALS[proof.goal], proof.answer
    ours = proof.latency(answer).measured
    said = [f"{goal} is {milliseconds(ours)} ms."]
    raw = next((way for way in proof.ways if way.kind == "raw"), None)
    if raw is not None:
        without = proof.latency(raw).measured
        said[0] = (
            f"{goal} is {milliseconds(ours)} ms, against {milliseconds(without)} ms without "
            f"compression: {percent(1 - ours / without)} less."
        )
    said.append(_against_one_bound(goal, ours, proof))
    within = "within" if answer.kl.mean <= proof.nats else "above"
    said.append(
        f"It loses KL {answer.kl.mean:.2g} nats a token ({answer.kl.low:.2g} to "
        f"{answer.kl.high:.2g}), {within} the budget of {proof.nats:.2g}{_answered(proof)}."
    )
    if (adaptive := _adaptive(proof)) is not None:
        said.append(adaptive)
    return said


def _answered(proof: Proof) -> str:
    answer, change = proof.answer, proof.answer.ica_change
    if answer.ica is None or change is None:
        return ""
    return (
        f"; of {proof.items} items {percent(answer.ica)} are answered rightly, "
        f"{percent(change.mean, signed=True)} ({percent(change.low, signed=True)} to "
        f"{percent(change.high, signed=True)}) of what is without an error"
    )


def _adaptive(proof: Proof) -> str | None:
    """Whether a bound that goes by the router's weight is better than the answer."""
    every = [way for way in proof.ways if way.kind == "adaptive"]
    if not every:
        return None
    ours = proof.latency(proof.answer).measured
    within = [way for way in every if way.kl.mean <= max(proof.nats, proof.answer.kl.mean)]
    best = min(within, key=lambda way: proof.latency(way).measured, default=None)
    if best is None:
        return "No bound that goes by the router's weight loses as little as was allowed."
    theirs = proof.latency(best).measured
    verdict = "less" if theirs < ours else "more"
    return (
        f"A bound that goes by the router's weight ({best.name}) takes {milliseconds(theirs)} ms, "
        f"{percent(abs(1 - theirs / ours))} {verdict}, and loses KL {best.kl.mean:.2g}."
    )


def _against_one_bound(goal: str, ours: float, proof: Proof) -> str:
    found = gain(proof)
    if found is None:
        rival = proof.rival
        if rival is None:
            return "No single bound of the ladder loses as little as it does."
        theirs = proof.latency(rival).measured
        return (
            f"The fastest single bound that loses no more ({rival.name}) takes "
            f"{milliseconds(theirs)} ms: the answer takes {percent(1 - ours / theirs)} less."
        )
    two = " and ".join(found.between)
    verdict = "less" if found.share >= 0 else "more"
    return (
        f"A single bound that loses as much (between {two}) would take "
        f"{milliseconds(found.seconds)} ms: a bound a {proof.by} takes "
        f"{percent(abs(found.share))} {verdict}, {_certain(found)} of {goal}."
    )


def _certain(found: Gain) -> str:
    """Whether repeats agree on the sign."""
    ends = f"{percent(found.low, signed=True)} to {percent(found.high, signed=True)} over repeats"
    if found.low > 0 or found.high < 0:
        return f"{ends}, beyond the noise"
    return f"{ends}, within the noise"


def sure(proof: Proof) -> list[str]:
    """How far the prediction held, and what the search can say."""
    answer = proof.answer
    both = proof.latency(answer)
    every = [proof.latency(way) for way in proof.ways]
    errors = [abs(one.simulated / one.measured - 1) for one in every]
    said = [
        f"{GOALS[proof.goal]} was predicted as {milliseconds(both.simulated)} ms{_band(both)}; it "
        f"is off by {percent(both.simulated / both.measured - 1, signed=True)}. Over all "
        f"{len(errors)} ways of this page the median error is {percent(float(np.median(errors)))} "
        f"and the largest {percent(max(errors))}; nothing was fitted to these runs."
    ]
    if (guess := answer.kl_estimated) is not None:
        said.append(
            f"The loss was estimated as KL {guess.mean:.2g} ({guess.low:.2g} to {guess.high:.2g}) "
            f"by the sensitivity, and is {answer.kl.mean:.2g} on texts and items of their own."
        )
    if proof.exact:
        said.append(
            f"All choices within the budget were simulated ({proof.simulations}): by the model, "
            "none is faster."
        )
    else:
        said.append(
            f"{proof.simulations} choices were simulated; by what single changes are worth, none "
            f"within the budget is faster by more than {percent(proof.gap)}."
        )
    logs = all(way.decisions_equal for way in proof.ways if way.kind != "adaptive")
    said.append(
        f"Each way was run {len(both.repeats)} times, interleaved; decision logs of runs and "
        f"simulations are {'equal' if logs else 'DIFFERENT'}. Measured on {proof.machine.cpu}, "
        f"{proof.machine.measured_on}, by offsim {proof.offsim}: the latency is of this machine, "
        "the loss of this model."
    )
    return said


def _band(both: Both) -> str:
    if both.low is None or both.high is None:
        return ""
    return f" (90 % band {milliseconds(both.low)} to {milliseconds(both.high)})"


def ways_table(proof: Proof) -> Table:
    """A row a way, the fastest first."""
    goal = GOALS[proof.goal]
    ordered = sorted(proof.ways, key=lambda way: proof.latency(way).measured)
    return Table(
        caption=f"Every way that was run: {goal} (ms), bytes over the link, KL (nats a token)",
        labels=["MEASURED", "SIMULATED", "ESTIMATED"],
        head=[
            "stored",
            f"{goal}, predicted",
            f"{goal}, measured",
            "over the link",
            "KL, predicted",
            "KL, measured",
            "right answers",
        ],
        rows=[_row(proof, way) for way in ordered],
    )


def _row(proof: Proof, way: Way) -> list[Cell]:
    both, marked = proof.latency(way), way.kind == "optimised"
    texts = [
        way.name,
        milliseconds(both.simulated),
        milliseconds(both.measured),
        show_bytes(way.link_bytes),
        NOTHING if way.kl_estimated is None else f"{way.kl_estimated.mean:.2g}",
        f"{way.kl.mean:.2g}" if way.kl.mean > 0 else "0",
        NOTHING if way.ica is None else percent(way.ica),
    ]
    return [Cell(text, marked) for text in texts]


@themed
def frontier(proof: Proof) -> Figure:
    """Latency over loss, MEASURED; predictions are hollow."""
    figure = new_figure(4.4)
    axes = figure.subplots()
    lossy = [way for way in proof.ways if way.kl.mean > 0]
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
        axes.annotate(
            way.name,
            (way.kl.mean, 1e3 * both.measured),
            xytext=(7, 6),
            textcoords="offset points",
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
        (proof.nats, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -12),
        textcoords="offset points",
        fontsize=SMALLEST,
        color=FAINT,
    )
    axes.set(xscale="log", xlabel="loss: KL, nats a token", ylabel=f"{GOALS[proof.goal]}, ms")
    plain_log(axes.xaxis, subs=(1,))
    titled(
        figure,
        "What each way takes and loses: filled is measured, hollow is predicted",
        ["MEASURED", "SIMULATED", "ESTIMATED"],
    )
    return figure


@themed
def places(proof: Proof) -> Figure:
    """The bound of every place of the answer."""
    answer = proof.answer
    assert answer.bounds is not None
    layers, experts = proof.model.layers, proof.model.experts
    used, at = answer.bounds.table(layers, experts)
    values = np.array([bound.value for bound in used])[at]  # [layers, experts, 3]
    shown, rows = values[:, :1, 0].T, ["all experts"]
    if proof.by == "expert":
        shown, rows = values[:, :, 0].T, [str(one) for one in range(experts)]
    if proof.by == "matrix":
        shown, rows = values[:, 0].T, list(MATRICES)
    figure = new_figure(1.5 + 0.28 * len(rows))
    axes = figure.subplots()
    ends = min(values.min(), values.max() / 2), values.max()
    image = axes.imshow(shown, aspect="auto", cmap="cividis", norm=LogNorm(*ends))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(layers), [str(one) for one in range(layers)])
    axes.set_xlabel("layer")
    axes.grid(visible=False)
    if layers <= 32:
        for (row, layer), value in np.ndenumerate(shown):
            dark = value < np.sqrt(ends[0] * ends[1])
            axes.text(
                layer,
                row,
                bound_text(float(value)),
                ha="center",
                va="center",
                fontsize=SMALLEST,
                color="white" if dark else INK,
            )
    bar = figure.colorbar(image, ax=axes, label="error bound", fraction=0.03)
    bar.set_ticks(sorted({float(v) for v in np.unique(values)}))
    bar.set_ticklabels([bound_text(float(v)) for v in np.unique(values)])
    bar.minorticks_off()
    titled(figure, f"The bound of each {proof.by}", ["ESTIMATED"])
    return figure


@themed
def surroundings(proof: Proof, around: Around) -> Figure:
    """How far each figure of the machine moves the answer, and who wins on other machines."""
    figure = new_figure(4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    now = 1e3 * proof.latency(proof.answer).simulated
    for row, swing in enumerate(reversed(around.swings)):
        for seconds, colour in ((swing.less_s, "#56b4e9"), (swing.more_s, "#d55e00")):
            left.barh(row, 1e3 * seconds - now, left=now, color=colour, height=0.6)
    left.set_yticks(range(len(around.swings)), [one.figure for one in reversed(around.swings)])
    left.axvline(now, color=INK, linewidth=1)
    left.set(xlabel=f"{GOALS[proof.goal]}, ms", title="Blue: a fifth less. Red: a quarter more.")
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
    right.set(xlabel="slots of a layer", ylabel="link, MB/s", title="Fastest, and how much of raw")
    handles = [Patch(color=palette(number), alpha=0.55) for number in range(len(names))]
    right.legend(handles, names, loc="upper left", bbox_to_anchor=(1, 1))
    titled(figure, "What the answer depends on", ["SIMULATED"])
    return figure
