"""`offsim capacity`: how many requests a second a machine holds, and how many machines it takes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options
from offsim.cli.groups import Loading, Placement, Storage, grouped

if TYPE_CHECKING:
    from offsim.study.capacity import Capacity


@grouped
def capacity(
    *,
    trace: options.TraceFile,
    calibration: options.CalibrationFile,
    ttft: Annotated[
        float | None,
        typer.Option(help="Target: 95 % of the requests have their first token in so many s."),
    ] = None,
    tpot: Annotated[
        float | None, typer.Option(help="Target: mean time per output token, s.")
    ] = None,
    load: Annotated[
        float | None,
        typer.Option(help="Requests a second for which machines are wanted.", min=0.0),
    ] = None,
    storage: Storage,
    loading: Loading,
    placement: Placement,
    link: options.LinkSpeed = "paced",
    max_batch: Annotated[int, typer.Option(help="Requests that share a step, at most.", min=1)] = 8,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(help="Prompt tokens in a step, at most; whole prompts by default.", min=1),
    ] = None,
    requests: Annotated[
        int, typer.Option(help="Of each simulation, drawn from those of the trace.", min=2)
    ] = 100,
    draws: Annotated[int, typer.Option(help="Of arrivals, averaged at each rate.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the first draw.", min=0)] = 0,
    figure: options.Figure = None,
    as_json: options.Json = False,
) -> None:
    """Find the rate of arrivals up to which a machine keeps a TTFT and a TPOT.

    Requests of the trace arrive at random and are batched continuously, as `offsim serve` does.

    Example: offsim capacity --trace traces/embedded.safetensors --calibration
    calibration/machines/xeon-2core.yaml --slots 4 --link 60 --ttft 0.5 --load 20
    """
    from offsim.cli.case import asked_policy, case_of
    from offsim.cli.policies import described
    from offsim.files import check_writable
    from offsim.simulate.batching import Batching
    from offsim.simulate.serving import check_online
    from offsim.study.capacity import Target
    from offsim.study.capacity import capacity as found_by
    from offsim.trace import load_trace

    target = Target(ttft, tpot)
    policy = asked_policy(storage, loading, placement)
    check_online(policy)
    if figure is not None:
        check_writable(figure.parent)
    profile, recorded = loading.profile, load_trace(trace)
    case = case_of(recorded, calibration, policy, link, profile, placement, classes=True)
    batching = Batching(max_batch, prompt_tokens)
    with display.progress(as_json) as tell:
        found = found_by(case, batching, target, requests, draws, seed, tell)
        if figure is not None:
            _draw(found, described(case.policy), figure)
    machines = None if load is None else found.machines(load)
    if as_json:
        facts = {"per_s": found.per_s, "machines": machines, "load_per_s": load}
        display.emit_json({**asdict(found), **facts})
    else:
        _show(found, described(case.policy), load, machines)


def _draw(found: "Capacity", policy: str, path: Path) -> None:
    from offsim.files import replacing
    from offsim.report.capacity import capacity_figure
    from offsim.report.style import png

    image = png(capacity_figure(found, policy))
    with replacing(path) as partial:
        partial.write_bytes(image)


def _show(found: "Capacity", policy: str, load: float | None, machines: int | None) -> None:
    import pandas as pd

    from offsim.units import show_seconds

    rows = [
        {
            "requests/s": f"{one.per_s:.3g}",
            "TTFT p95": show_seconds(one.ttft_p95_s),
            "TPOT": show_seconds(one.tpot_s),
            "tokens/s": f"{one.tokens_per_s:.3g}",
            "mean batch": f"{one.batch:.2f}",
            "target": "kept" if one.holds else "missed",
        }
        for one in found.loads
    ]
    display.show_table(f"{policy} [{found.label}]", pd.DataFrame(rows))
    typer.echo(_answer(found))
    if load is not None:
        typer.echo(f"{load:g} requests/s take {machines} machines, each with its share of them.")


def _answer(found: "Capacity") -> str:
    if not found.per_s:
        return "A machine does not keep the target for any rate."
    if found.too_high == float("inf"):
        return (
            f"The target is kept for all {found.requests} requests at once; more --requests, or a "
            "longer trace, would show a limit."
        )
    return (
        f"A machine keeps the target up to {found.per_s:.3g} requests/s, and not at "
        f"{found.too_high:.3g} ({found.draws} draws of {found.requests} requests)."
    )
