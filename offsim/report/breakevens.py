"""TPOT over the bandwidth of the link, and where codecs stop beating raw."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from offsim.study.answers import bandwidth_verdict
from offsim.study.breakeven import Breakevens, CodecBreakeven

_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (3, 1, 1, 1)), (0, (5, 1)), (0, (1, 1)))

SHORT = 1000
"""Times that an axis grows from end to end, below which it has several ticks a decade."""


@themed
def breakeven_figure(found: Breakevens, policy: str) -> Figure:
    """TPOT of every codec over the bandwidth, both logarithmic, with the crossings marked.

    Args:
        found: all codecs against raw.
        policy: for the title.
    """
    figure = new_figure(5.2)
    axes = figure.subplots()
    raw = dict(zip(found.bandwidths, found.raw_tpot_s, strict=True))
    for one in found.codecs:
        raw |= _places(one)
    _line(axes, raw, color=codec_colour("raw"), lw=2.6, label="raw")
    bounds = Counter[str]()
    for one in found.codecs:
        colour = codec_colour(one.codec)
        style = _DASHES[bounds[one.codec] % len(_DASHES)]
        bounds[one.codec] += 1
        times = dict(zip(found.bandwidths, one.tpot_s, strict=True)) | _places(one)
        label = f"{one.storage}: {bandwidth_verdict(one)}"
        _line(axes, times, color=colour, ls=style, label=label)
        _line(axes, _places(one), marker="o", mfc="white", mec=colour, mew=1.8, ls="none", zorder=4)
    given = found.link_bytes_per_s / 1e9
    axes.axvline(given, color=FAINT, lw=1, zorder=0)
    axes.annotate(
        " the given link", (given, 0.98), xycoords=("data", "axes fraction"), va="top",
        fontsize=SMALL, color=INK,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    plain_log(axes.xaxis, (1,))
    plain_log(axes.yaxis, (1, 2, 5) if high < SHORT * low else (1,))
    axes.set_xlabel("bandwidth of the link, GB/s")
    axes.set_ylabel("TPOT, ms a token")
    axes.legend(title="where it is faster than raw", loc="upper right")
    titled(figure, f"Where compressed experts are faster than raw: {policy}", [found.label])
    return figure


def _places(one: CodecBreakeven) -> dict[float, float]:
    """TPOT at the crossings, s, where codec and raw are as fast."""
    return {crossing.bytes_per_s: crossing.tpot_s for crossing in one.crossings}


def _line(axes: Axes, times: Mapping[float, float], **style: Any) -> None:
    """Draw seconds over bytes/s as ms over GB/s."""
    places = sorted(times)
    axes.plot([place / 1e9 for place in places], [1e3 * times[place] for place in places], **style)
