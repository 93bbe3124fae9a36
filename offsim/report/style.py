"""What all figures share: theme, colours, the label of where numbers come from, and PNG bytes."""

import io
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from offsim.record.events import Label

P = ParamSpec("P")

WIDTH = 11.0
"""Of every figure, inches: 100 px an inch where the page shows it."""
DPI = 160
"""Of the PNG files: sharp on a dense screen, and a few hundred KB at most."""
COLOURS = 256
"""Of a PNG's palette: flat colours and text need no more, and the file is half as large."""
SMALL, PLAIN, LARGE = 9.0, 10.0, 13.0
"""Font sizes, pt."""

LABEL_COLOURS: dict[Label, str] = {
    "MEASURED": "#1b6e3c",
    "SIMULATED": "#5b3a8e",
    "ESTIMATED": "#9a5200",
}
"""The same as in report.css."""

_CODEC_COLOURS = {
    "raw": "#6f6f6f",
    "cuszp": "#0173b2",
    "sz3": "#de8f05",
    "zfp": "#029e73",
    "lossless": "#ca9161",
    "rtn-int8": "#cc78bc",
    "rtn-int4": "#d55e00",
}
_OTHER_COLOURS = ("#fbafe4", "#949494", "#ece133", "#56b4e9")
PART_COLOURS = {
    "compute": "#a9bccb",
    "disk": "#ca9161",
    "host decode": "#d55e00",
    "host compute": "#029e73",
    "link": "#56b4e9",
    "device decode": "#cc78bc",
    "hand-over": "#2b2b2b",
}
"""Of the parts of a decode step."""
INK, FAINT = "#222222", "#8a8a8a"


def codec_colour(codec: str) -> str:
    """A codec's colour in every figure, from palettes that colour-blind people can tell apart."""
    spare = _OTHER_COLOURS[sum(codec.encode()) % len(_OTHER_COLOURS)]
    return _CODEC_COLOURS.get(codec, spare)


def _theme() -> dict[Any, Any]:
    """Settings of matplotlib, sizes in pt."""
    return {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook"),
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same figures everywhere
        "font.size": PLAIN,
        "axes.labelsize": PLAIN,
        "axes.titlesize": PLAIN + 0.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.edgecolor": "#b5b5b5",
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.8,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.title_fontsize": SMALL,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.5,
        "hatch.linewidth": 0.8,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }


def themed(make: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a figure under the theme and lay it out, without touching matplotlib's own settings."""

    @wraps(make)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_theme()):
            figure = make(*args, **kwargs)
            figure.draw_without_rendering()  # ticks take their style when they are first drawn
            return figure

    return inner


def new_figure(height: float) -> Figure:
    """An empty figure that no global state knows of: `WIDTH` by `height` inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.07, wspace=0.03)  # type: ignore[union-attr,call-arg]
    return figure


def titled(figure: Figure, title: str, labels: Sequence[Label]) -> None:
    """Put a title at the top left and the labels of its numbers at the top right."""
    badges = [0.092 * len(label) + 0.2 for label in labels]  # inches, with the gap
    characters = int((WIDTH - sum(badges) - 0.3) / 0.11)
    figure.suptitle(
        "\n".join(textwrap.wrap(title, characters)),
        x=0.008,
        ha="left",
        fontsize=LARGE,
        fontweight="bold",
    )
    height = figure.get_figheight()
    right = WIDTH - 0.12
    for label, width in zip(reversed(labels), reversed(badges), strict=True):
        figure.text(
            right / WIDTH,
            1 - 0.165 / height,
            label,
            ha="right",
            va="center",
            color="white",
            fontsize=SMALL,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.3", "fc": LABEL_COLOURS[label], "ec": "none"},
        )
        right -= width


def plain_log(axis: mpl.axis.Axis, subs: Sequence[float] = (1, 1.5, 2, 3, 5, 7)) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, several a decade."""
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(_theme()):
        # matplotlib would write its own version into the file
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def small_png(figure: Figure) -> bytes:
    """The same with a palette."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png(figure))) as full:
        full.convert("RGB").quantize(COLOURS).save(buffer, "png", optimize=True)
    return buffer.getvalue()
