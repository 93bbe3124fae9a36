"""The figure of a run's first steps: what each part of the machine does, line by line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from offsim.record import RunRecord, StepRecord
from offsim.record.events import STAGES
from offsim.record.metrics import split_wait
from offsim.report.style import INK, PART_COLOURS, SMALL, WIDTH, new_figure, themed, titled
from offsim.report.text import percent
from offsim.trace import PREFILL

HIT, MISS = "#b9d8b4", "#f6e3b4"
PALE = 0.55
"""How far the colour of a stage goes to white where it serves what was fetched ahead."""
MOST_LINES = 8
STEPS_A_LINE = 4
"""That a line is long enough for, by the median step."""
LABELS, LETTER = 1.15, 0.083
"""Inches left of the bars, and of a character of the smallest size."""
A_ROW = 7
"""Entries of the legend that fit side by side."""
THIN = 0.03
"""Inches of a bar that has no edge."""
LEAST = 0.01
"""Share of a part of the waiting that the title names."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of a row.

    Attributes:
        row: name of the row.
        start: ms since the first step that is shown.
        end: ms.
        colour: of its face.
        text: written into it where it fits.
        low: lower edge within the row, 0..1.
        high: upper edge.
    """

    row: str
    start: float
    end: float
    colour: str
    text: str = ""
    low: float = 0.0
    high: float = 1.0


@themed
def timeline_figure(
    record: RunRecord, steps: tuple[int, int] = (0, 19), policy: str = ""
) -> Figure:
    """Rows of layers, compute and the stages of loads over time, wrapped into lines.

    Compute is in the colour of the stage that it waits for while it waits. A layer's box begins at
    its lookup, which is known where an expert was missing and spaced evenly in between. Loads that
    were fetched ahead are pale.

    Args:
        record: simulated or measured.
        steps: first and last step that is shown, from 0; the last may lie beyond the end.
        policy: in words, for the title.

    Raises:
        ValueError: the record has none of these steps.
    """
    first, last = steps
    shown = record.steps[first : last + 1] if 0 <= first <= last else []
    if not shown:
        raise ValueError(f"steps {first} to {last} are none of the record's {len(record.steps)}")
    origin = shown[0].start
    bars = [bar for step in shown for bar in _bars(step, origin)]
    used = {bar.row for bar in bars}
    rows = ["layers", "compute", *(stage for stage in STAGES if stage in used)]
    lengths = [1e3 * (step.end - step.start) for step in shown]
    total = max(1e3 * (shown[-1].end - origin), 1e-6)
    typical = max(float(np.median(lengths)), total / (STEPS_A_LINE * MOST_LINES))
    lines = int(np.clip(round(total / (STEPS_A_LINE * typical)), 1, MOST_LINES))
    figure = new_figure(1.15 + lines * (0.5 + 0.23 * len(rows)))
    grid: list[Axes] = list(figure.subplots(lines, 1, squeeze=False).ravel())
    width = total / lines
    for number, axes in enumerate(grid):
        _line(axes, rows, bars, (number * width, (number + 1) * width))
        _step_names(axes, shown, first, origin)
    grid[-1].set_xlabel(f"ms since the start of step {first}")
    _legend(figure, rows, ahead=any(load.ahead for step in shown for load in step.loads))
    titled(figure, _title(shown, policy), [record.label])
    return figure


def lookups(step: StepRecord) -> list[float]:
    """When each of a step's decisions was taken, s, and last the end of the step.

    Where an expert was missing it is when the first was asked for, and where one was only late,
    when compute first waited for it. The others are spaced evenly: from the start of the step, or
    the end of the last known layer's waits and when it fetched ahead, to the next that is known.
    """
    asked: dict[int, float] = {}
    for load in step.loads:
        if not load.ahead:
            asked.setdefault(load.layer, load.submitted)
    ended: dict[int, float] = {}
    for wait in step.waits:
        asked.setdefault(wait.load.layer, wait.start)
        ended[wait.load.layer] = wait.end
    issued = (load.submitted for load in step.loads if load.ahead)
    times: list[float] = []
    since = step.start
    for number, decision in enumerate(step.decisions):
        ahead = list(islice(issued, len(decision.fetched)))
        if decision.layer in asked:
            at = max(asked[decision.layer], since)
            times += _evenly(since, at, number - len(times) + 1)
            since = max(at, ended.get(decision.layer, at))
        elif ahead:  # the layer was done by then
            times += _evenly(since, ahead[0], number - len(times) + 2)[:-1]
        since = max([since, *ahead])
    return times + _evenly(since, step.end, len(step.decisions) - len(times) + 1)


def _evenly(since: float, until: float, parts: int) -> list[float]:
    """The ends of equal parts of a time."""
    ends: list[float] = np.linspace(since, max(since, until), parts + 1)[1:].tolist()
    return ends


def stage_colour(stage: str, *, ahead: bool) -> str:
    """Of a load in a stage; paler where it was fetched ahead."""
    if not ahead:
        return PART_COLOURS[stage]
    red, green, blue = (part + PALE * (1 - part) for part in to_rgb(PART_COLOURS[stage]))
    return to_hex((red, green, blue))


def _bars(step: StepRecord, origin: float) -> Iterator[Bar]:
    """What is drawn of a step."""

    def ms(time: float) -> float:
        return 1e3 * (time - origin)

    edges = [ms(time) for time in lookups(step)]
    for decision, start, end in zip(step.decisions, edges, edges[1:], strict=False):
        asked = len(decision.hits) + len(decision.misses)
        share = len(decision.hits) / asked if asked else 1.0
        if share:
            yield Bar("layers", start, end, HIT, high=share)
        if share < 1:
            yield Bar("layers", start, end, MISS, low=share)
        yield Bar("layers", start, end, "none", str(decision.layer))
    yield Bar("compute", ms(step.start), ms(step.end), PART_COLOURS["compute"])
    for wait in step.waits:
        since = wait.start
        for stage, seconds in split_wait(wait).items():
            if seconds > 0:
                yield Bar("compute", ms(since), ms(since + seconds), PART_COLOURS[stage])
            since += seconds
    for load in step.loads:
        for span in load.spans:
            colour = stage_colour(span.stage, ahead=load.ahead)
            yield Bar(span.stage, ms(span.start), ms(span.end), colour, str(load.expert))


def _line(axes: Axes, rows: list[str], bars: list[Bar], limits: tuple[float, float]) -> None:
    """Draw what falls between two times, ms."""
    low, high = limits
    shapes, faces, edges = [], [], []
    longest = max((bar.text for bar in bars if bar.row in STAGES), key=len, default="")
    for bar in bars:
        start, end = max(bar.start, low), min(bar.end, high)
        if start > high or end < low:
            continue
        top = rows.index(bar.row) + 0.08
        upper, lower = top + 0.84 * (1 - bar.high), top + 0.84 * (1 - bar.low)
        shapes.append([(start, lower), (end, lower), (end, upper), (start, upper)])
        faces.append(bar.colour)
        # A white edge parts neighbours, but would hide a bar that is hardly wider than itself.
        edges.append("white" if _inches(end - start, high - low) > THIN else bar.colour)
        # Experts all have room for the longest, or only those of few digits would be named.
        room = longest if bar.row in STAGES else bar.text
        if bar.text and _fits(room, end - start, high - low):
            axes.text(
                (start + end) / 2,
                top + 0.42,
                bar.text,
                ha="center",
                va="center_baseline",
                fontsize=SMALL,
            )
    axes.add_collection(PolyCollection(shapes, facecolors=faces, edgecolors=edges, lw=0.6))
    axes.set_xlim(low, high)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.tick_params(axis="both", length=0, pad=2)
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 5, 10]))
    for side in axes.spines.values():
        side.set_visible(False)


def _fits(text: str, ms: float, line: float) -> bool:
    """Whether a text is shorter than so many ms of a line of so many."""
    return len(text) * LETTER <= _inches(ms, line)


def _inches(ms: float, line: float) -> float:
    """Of so many ms on a line of so many."""
    return ms / line * (WIDTH - LABELS)


def _step_names(axes: Axes, shown: Sequence[StepRecord], first: int, origin: float) -> None:
    """Write above each step its number, phase, hits and misses, as far as there is room."""
    low, high = axes.get_xlim()
    for number, step in enumerate(shown, first):
        start, end = (1e3 * (time - origin) for time in (step.start, step.end))
        if start >= high or end <= low:
            continue
        if start >= low:
            axes.axvline(start, color=INK, lw=0.9, ymax=1.0, clip_on=False)
        phase = "prefill" if step.phase == PREFILL else "decode"
        hits = f"hits {sum(len(d.hits) for d in step.decisions) - step.late}"
        misses = f"misses {sum(len(d.misses) for d in step.decisions)}"
        late = f"late {step.late}, " if step.late else ""
        on = "" if start >= low else "… "
        for text in (
            f"{on}{number} {phase}: {hits}, {late}{misses}",
            f"{on}{number}: {hits}, {late}{misses}",
            f"{on}{number}: {late}{misses}",
            f"{on}{number}",
        ):
            if _fits(f"{text} ", min(end, high) - max(start, low), high - low):
                axes.text(max(start, low), -0.1, text, va="bottom", fontsize=SMALL)
                break


def _legend(figure: Figure, rows: list[str], *, ahead: bool) -> None:
    stages = [stage for stage in STAGES if stage in rows]
    handles = [
        Patch(fc=HIT, label="layer: hits, late ones too" if ahead else "layer: hits"),
        Patch(fc=MISS, label="misses"),
        Patch(fc=PART_COLOURS["compute"], label="compute"),
        *(Patch(fc=PART_COLOURS[stage], label=f"{stage}, or waiting for it") for stage in stages),
        Patch(fc=PART_COLOURS["hand-over"], label="hand-over"),
    ]
    if ahead:
        pale = [stage_colour(stage, ahead=True) for stage in stages]
        handles.append(Patch(fc=pale[0] if pale else "none", label="pale: fetched ahead"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles) if len(handles) <= A_ROW else -(-len(handles) // 2),
        columnspacing=1.2,
        handlelength=1.4,
        title="Above a line: the steps. Numbers in boxes: layers, and the experts that are loaded.",
    )


def _title(shown: Sequence[StepRecord], policy: str) -> str:
    """How much of the steps is waiting, and for what most."""
    seconds: dict[str, float] = {}
    for step in shown:
        for wait in step.waits:
            for stage, part in split_wait(wait).items():
                seconds[stage] = seconds.get(stage, 0.0) + part
    whole = sum(step.end - step.start for step in shown)
    waiting = sum(seconds.values())
    said = f"{policy}: " if policy else ""
    steps = f"{len(shown)} step{'' if len(shown) == 1 else 's'}"
    if not waiting or not whole:
        return f"{said}compute waits for no expert in {steps}"
    parts = sorted(seconds.items(), key=lambda part: -part[1])
    named = [f"{name} {percent(part / whole)}" for name, part in parts if part >= LEAST * whole]
    text = f"{said}waiting is {percent(waiting / whole)} of {steps}: {', '.join(named)}"
    return text.replace(" %", "\u00a0%")  # a line of the title does not break there
