"""`offsim trace curve`: how much cache a workload needs, and whether the policy is to blame."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    import pandas as pd

    from offsim.trace import Trace

DEFAULT = ("lru", "lfu-aging", "belady")
LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def curve(
    trace: Annotated[Path, typer.Argument(help="Trace file.")],
    cache: Annotated[
        list[str] | None,
        typer.Option(help="As often as wanted; default: " + ", ".join(DEFAULT) + "."),
    ] = None,
    scope: options.Scope = options.PoolScope.LAYER,
    profile: options.Profile = None,
    seed: Annotated[int, typer.Option(help="Of a cache that draws.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="Also draw it into this PNG.")] = None,
    as_json: options.Json = False,
) -> None:
    """Hit rate over cache size, beside the bound and the working set.

    Where `belady` is low too, the working set is to blame: only a larger cache or smaller experts
    help. Where it is far above, the policy is.

    Example: offsim trace curve traces/embedded.safetensors --cache lru --cache belady
    """
    from offsim.files import check_writable
    from offsim.policy.registry import eviction_named

    names = list(dict.fromkeys(cache or DEFAULT))
    for name in names:
        eviction_named(name)
    if figure is not None:
        check_writable(figure.parent)
    with display.progress() as tell:
        tell("loading", 0.0)
        from offsim.trace import load_trace

        loaded = load_trace(trace)
        known = load_trace(profile) if profile is not None else None
        table = _table(loaded, names, scope, seed, known, tell)
        if figure is not None:
            from offsim.files import replacing
            from offsim.report.curves import hit_rate_figure
            from offsim.report.style import png

            image = png(hit_rate_figure(table, trace.stem, loaded.info.experts_per_layer))
            with replacing(figure) as partial:
                partial.write_bytes(image)
    if as_json:
        display.emit_json({"label": "SIMULATED", "points": table.to_dict(orient="records")})
    else:
        shown = table.rename(columns={"working_set_ratio": "working set / slots"})
        display.show_table(f"Hit rate in decoding, {trace.name} [SIMULATED]", shown)


def _table(
    trace: "Trace",
    names: list[str],
    scope: options.PoolScope,
    seed: int,
    profile: "Trace | None",
    tell: "display.Tell",
) -> "pd.DataFrame":
    """A row for each number of slots: working-set ratio and hit rates in decoding."""
    import pandas as pd

    from offsim.policy.policy import Policy
    from offsim.policy.replay import cache_for, replay
    from offsim.trace.statistics import working_set_ratio

    experts = trace.info.experts_per_layer
    sizes = [slots for slots in LADDER if slots < experts] + [experts]
    rows = []
    for place, slots in enumerate(sizes):
        row: dict[str, float] = {
            "slots": slots,
            "working_set_ratio": working_set_ratio(trace, slots),
        }
        for name in names:
            tell(f"{name}, {slots} slots", place / len(sizes))
            policy = Policy(cache=name, slots=slots, scope=scope.value, seed=seed)
            counts = replay(trace, cache_for(policy, trace, profile), [0] * trace.layers)
            row[name] = counts.hit_rate_decode
        rows.append(row)
    return pd.DataFrame(rows)
