"""What commands show: progress on stderr, results on stdout, as text or as JSON."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from offsim.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    import pandas as pd

    from offsim.policy.policy import Policy
    from offsim.record import Metrics
    from offsim.simulate.band import Band, Interval
    from offsim.trace import Trace

    Tell: TypeAlias = Callable[[str, float], None]

PIPED_WIDTH = 140
MANY_LOOKUPS = 500_000
"""Tokens times layers of a trace; for so many the policy's classes take a second or more."""
BANDS = {
    "TTFT": (("", "ttft_s"),),
    "TPOT": (("", "tpot_s"),),
    "ITL p50 / p95 / p99": ((" of p50", "itl_p50_s"), (" of p95", "itl_p95_s")),
}
"""Rows of metrics that are times, and what in them has a band."""
OUT = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
ERR = Console(stderr=True)


@contextmanager
def progress(quiet: bool = False) -> "Iterator[Tell]":
    """A bar on stderr; the value is called with what is done next and the share done, 0..1."""
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=ERR, disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def tell(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        yield tell


def note_compiling() -> None:
    """Say on stderr that the first simulation after an installation takes longer."""
    from offsim.simulate.fast.compiled import is_compiled

    if not is_compiled():
        typer.echo("offsim: compiling the fast engine, once: about half a minute", err=True)


def note_classes(policy: "Policy", trace: "Trace", *, always: bool = False) -> None:
    """Say on stderr that the policy's classes decide where compiled code does not.

    Args:
        policy: that decides.
        trace: the router's decisions; of a short one nothing is said.
        always: whether compiled code decides for no policy: with noise, and in serving.
    """
    from offsim.simulate.fast.foresight import foresees
    from offsim.simulate.fast.planning import covers

    is_compiled = covers(policy) and foresees(policy, trace.layers) and not always
    if not is_compiled and trace.tokens * trace.layers >= MANY_LOOKUPS:
        typer.echo(
            "offsim: note: the policy's classes decide here, not compiled code; decisions are the "
            "same and take longer",
            err=True,
        )


def emit_json(value: Any) -> None:
    """Print JSON; numbers that are not finite become null."""
    typer.echo(json.dumps(_finite(value), indent=2, sort_keys=True))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_table(title: str, frame: "pd.DataFrame", digits: int = 3) -> None:
    """Print a table of numbers and words."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in frame.columns:
        table.add_column(str(column), justify="right" if frame[column].dtype != object else "left")
    for row in frame.itertuples(index=False):
        cells = [f"{cell:.{digits}g}" if isinstance(cell, float) else str(cell) for cell in row]
        table.add_row(*map(escape, cells))  # brackets are no markup
    OUT.print(table)


def show_metrics(
    title: str, metrics: "Metrics", as_json: bool, band: "Band | None" = None, /, **more: Any
) -> None:
    """Print the metrics of a run, with their label, and the 90 % band of those that have one."""
    band = band or {}
    if as_json:
        ends = {name: [interval.low, interval.high] for name, interval in band.items()}
        emit_json({**asdict(metrics), **({"band_90": ends} if ends else {}), **more})
        return
    stall = ", ".join(f"{k} {show_seconds(v)}" for k, v in metrics.decode_stall_s.items() if v)
    rows = {
        "TTFT": show_seconds(metrics.ttft_s),
        "TTFT p50 / p95 / p99": _shares(metrics.ttft_p50_s, metrics.ttft_p95_s, metrics.ttft_p99_s),
        "TPOT": show_seconds(metrics.tpot_s),
        "ITL p50 / p95 / p99": _shares(metrics.itl_p50_s, metrics.itl_p95_s, metrics.itl_p99_s),
        "throughput": f"{metrics.tokens_per_s:.3g} tokens/s{_rates(band)}",
        "hit rate": f"{metrics.hit_rate:.1%} (decode {metrics.hit_rate_decode:.1%})",
        **_decoded_again(metrics),
        **_prefetched(metrics),
        "over the link": show_bytes(metrics.link_bytes),
        **({"from disk": show_bytes(metrics.disk_bytes)} if metrics.disk_bytes else {}),
        "decode step": f"compute {show_seconds(metrics.decode_compute_s)}; waiting for {stall}",
        **{name.replace("_", " "): value for name, value in more.items()},
    }
    for row, names in BANDS.items():
        known = [(what, band[name]) for what, name in names if name in band]
        rows[row] += "".join(f"; 90 % band{what} {_between(ends)}" for what, ends in known)
    show_facts(f"{title} [{metrics.label}]", rows)


def _between(ends: "Interval") -> str:
    return f"{show_seconds(ends.low)} to {show_seconds(ends.high)}"


def _rates(band: "Band") -> str:
    ends = band.get("tokens_per_s")
    return "" if ends is None else f"; 90 % band {ends.low:.3g} to {ends.high:.3g}"


def _shares(*seconds: float) -> str:
    return " / ".join(map(show_seconds, seconds))


def _decoded_again(metrics: "Metrics") -> dict[str, str]:
    """How often a blob on the device was decoded, where one was."""
    return {"decoded again": f"{metrics.again_rate:.1%} of lookups"} if metrics.again_rate else {}


def _prefetched(metrics: "Metrics") -> dict[str, str]:
    """What prefetching did, where something was prefetched."""
    if not metrics.prefetch_bytes:
        return {}
    fetched, wasted = show_bytes(metrics.prefetch_bytes), show_bytes(metrics.wasted_bytes)
    return {
        "prefetch came late": f"{metrics.late_rate:.1%} of lookups",
        "prefetched": f"{fetched}, of which {wasted} for nothing",
    }


def show_facts(title: str, facts: "Mapping[str, object]") -> None:
    """Print names and what they are."""
    table = Table(title=title, title_justify="left", show_header=False, min_width=len(title))
    for name, value in facts.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        table.add_row(name, "unknown" if shown is None else escape(str(shown)))
    OUT.print(table)
