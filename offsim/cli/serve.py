"""`offsim serve`: what a policy would take where many requests decode together."""

from typing import Annotated

import typer

from offsim.cli import display, options
from offsim.cli.groups import Loading, Placement, Storage, grouped
from offsim.cli.timelines import Timelines


@grouped
def serve(
    *,
    trace: options.TraceFile,
    calibration: options.CalibrationFile,
    storage: Storage,
    loading: Loading,
    placement: Placement,
    link: options.LinkSpeed = "paced",
    arrivals: Annotated[
        str,
        typer.Option(
            help="When the requests arrive: at-once, poisson:RATE (requests a second), even:SPAN "
            "(seconds, or a number with s, m, h or d), or a CSV file with the columns "
            "request,seconds."
        ),
    ] = "at-once",
    arrivals_seed: Annotated[int, typer.Option(help="Of arrivals that are drawn.", min=0)] = 0,
    max_batch: Annotated[int, typer.Option(help="Requests that share a step, at most.", min=1)] = 8,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(help="Prompt tokens in a step, at most; whole prompts by default.", min=1),
    ] = None,
    engine: options.Engine = options.EngineName.FAST,
    noise: options.Noise = None,
    timelines: Timelines,
    as_json: options.Json = False,
) -> None:
    """Serve the requests of a trace as they arrive, with continuous batching.

    Example: offsim serve --trace out/traces/raw-0.safetensors --calibration out/calibration.yaml
    --slots 4 --link 60 --arrivals poisson:0.5 --max-batch 8 --prompt-tokens 64
    """
    import numpy as np

    from offsim.cli.case import asked_policy, case_of
    from offsim.cli.policies import described
    from offsim.simulate import serve as serving
    from offsim.simulate.arrivals import arrivals_of
    from offsim.simulate.batching import Batching
    from offsim.simulate.serving import check_online
    from offsim.trace import load_trace

    policy = asked_policy(storage, loading, placement)
    check_online(policy)
    timelines.check()
    recorded = load_trace(trace)
    arrive = arrivals_of(arrivals, np.unique(recorded.request).tolist(), arrivals_seed)
    profile = loading.profile
    case = case_of(recorded, calibration, policy, link, profile, placement, classes=True)
    with display.progress(as_json) as tell:
        served = serving(
            case.trace,
            case.policy,
            case.calibration,
            arrive.tolist(),
            Batching(max_batch, prompt_tokens),
            case.link_bytes_per_s,
            case.profile,
            engine.value,
            noise,
            events=timelines.wanted,
            tell=lambda share: tell("serving", share),
        )
    batches = {
        "steps": len(served.together),
        "mean_batch": float(served.together.mean()),
        "largest_batch": int(served.together.max()),
    }
    name = described(case.policy)
    display.show_metrics(name, served.metrics(), as_json, **batches)
    if timelines.wanted:
        model = case.calibration.model.name
        timelines.write(served.record(), name, model, case.link_bytes_per_s, case.kept_bytes)
