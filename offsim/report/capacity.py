"""What requests wait for, over the rate at which they arrive."""

from matplotlib.figure import Figure

from offsim.report.style import FAINT, INK, SMALL, new_figure, plain_log, themed, titled
from offsim.study.capacity import Capacity


@themed
def capacity_figure(found: Capacity, policy: str) -> Figure:
    """TTFT p95 and TPOT over requests a second, with the targets and the capacity.

    Args:
        found: by `offsim.study.capacity.capacity`.
        policy: for the title.
    """
    figure = new_figure(3.9)
    panels = figure.subplots(1, 2)
    rates = [load.per_s for load in found.loads]
    shown = (
        ("TTFT p95, ms", [load.ttft_p95_s for load in found.loads], found.target.ttft_s),
        ("TPOT, ms", [load.tpot_s for load in found.loads], found.target.tpot_s),
    )
    for axes, (label, seconds, target) in zip(panels, shown, strict=True):
        axes.plot(rates, [1e3 * one for one in seconds], "o-")
        if target is not None:
            axes.axhline(1e3 * target, color=FAINT, linestyle="--", linewidth=1)
            axes.annotate(
                "target",
                (0.01, 1e3 * target),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                fontsize=SMALL,
                color=INK,
            )
        if found.per_s:
            axes.axvline(found.per_s, color=FAINT, linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="requests/s", ylabel=label)
        plain_log(axes.xaxis, (1,))
        plain_log(axes.yaxis, (1, 2, 5))
    held = f"{found.per_s:.3g} requests/s" if found.per_s else "no rate"
    titled(figure, f"A machine holds {held}: {policy}", [found.label])
    return figure
