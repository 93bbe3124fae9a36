"""Where a token's time goes under one policy, and what more of each resource would bring."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offsim.report.style import FAINT, INK, PART_COLOURS, new_figure, themed, titled
from offsim.study.explain import Change, Explained, Split

SPLIT_COLOURS = {
    "compute": PART_COLOURS["compute"],
    "compulsory": "#56b4e9",
    "capacity": "#0173b2",
    "policy": "#d55e00",
}
_MEANINGS = {
    "compute": "compute, all experts resident",
    "compulsory": "compulsory: first uses",
    "capacity": "capacity: Belady with these slots",
    "policy": "policy: what it adds to Belady",
}
NARROW = 0.09
"""Share of the bar below which a part has no number in it."""


@themed
def explained_figure(found: Explained, policy: str) -> Figure:
    """A stacked bar of a token's time above a bar for each next resource.

    Args:
        found: what was found about the policy.
        policy: for the title.
    """
    figure = new_figure(4.6)
    where, more = figure.subplots(2, 1, height_ratios=(1, 2))
    _where(where, found.split)
    _more(more, found)
    handles, names = where.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    titled(figure, f"Where a token's time goes: {policy}", [found.label])
    return figure


def _where(axes: Axes, split: Split) -> None:
    parts = {
        "compute": split.compute_s,
        "compulsory": split.compulsory_s,
        "capacity": split.capacity_s,
        "policy": split.policy_s,
    }
    start = 0.0
    for name, seconds in parts.items():
        # What a policy takes less than Belady leads back, hatched over the part that it undoes.
        less = seconds < 0
        axes.barh(
            0,
            1e3 * seconds,
            left=1e3 * start,
            color="none" if less else SPLIT_COLOURS[name],
            hatch="////" if less else None,
            ec=SPLIT_COLOURS[name] if less else "white",
            lw=0.8,
            label=_MEANINGS[name],
        )
        if seconds >= NARROW * split.total_s:
            axes.text(
                1e3 * (start + seconds / 2),
                0,
                f"{1e3 * seconds:.3g} ms\n{seconds / split.total_s:.0%}",
                ha="center",
                va="center",
                color=INK if name in ("compute", "compulsory") else "white",
            )
        start += seconds
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("time of an output token (TPOT), ms")


def _more(axes: Axes, found: Explained) -> None:
    """Saved time, the largest changes to the right."""
    ahead = found.foresight
    rows = [(f"{_NEXT[one.resource]}\n{_short(one)}", one.saved_s) for one in found.changes]
    name = f"{ahead.prefetcher}{', if it had one' if ahead.hypothetical else ', as it is'}"
    rows.append((f"prefetching\n{name}", ahead.saved_s))
    total = found.split.total_s
    reach = max(abs(saved) for _, saved in rows) or total
    for place, (_, saved) in enumerate(rows):
        axes.barh(place, 1e3 * saved, height=0.6, color="#029e73" if saved >= 0 else "#d55e00")
        axes.text(
            1e3 * (max(saved, 0.0) + 0.01 * reach),
            place,
            f"{1e3 * saved:.3g} ms ({saved / total:.1%})",
            va="center",
        )
    axes.axvline(0, color=FAINT, lw=0.8)
    axes.set_yticks(range(len(rows)), [text for text, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    lowest = min(0.0, *(saved for _, saved in rows))
    axes.set_xlim(1.15e3 * lowest, 1.2e3 * reach)
    axes.set_xlabel("saved of each token, ms")


_NEXT = {"cache": "more cache", "link": "a faster link", "compression": "smaller blobs"}


def _short(change: Change) -> str:
    """What was added, without the reason where nothing was."""
    return change.what.partition(":")[0]
