"""`offsim serve`: what a policy would take where many requests decode together."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options


def serve(
    trace: Annotated[Path, typer.Option(help="Trace file.")],
    calibration: options.CalibrationFile,
    codec: options.Codec = "raw",
    bound: options.Bound = 0.0,
    cache: options.Cache = "lru",
    slots: options.Slots = 4,
    scope: options.Scope = options.PoolScope.LAYER,
    profile: options.Profile = None,
    prefetch: options.Prefetch = "none",
    distance: options.Distance = 1,
    prefetch_budget: options.PrefetchBudget = None,
    precision: options.Precision = 1.0,
    recall: options.Recall = 1.0,
    chunk: options.Chunk = None,
    pipelined: options.Pipelined = False,
    channels: options.Channels = 1,
    decoders: options.Decoders = 1,
    host_memory: options.HostMemory = None,
    host_tokens: options.HostTokens = "0",
    keep: options.Keep = options.KeepName.DECODED,
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
    timeline: options.Timeline = None,
    timeline_figure: options.TimelineFigure = None,
    timeline_steps: options.TimelineSteps = 20,
    as_json: options.Json = False,
) -> None:
    """Serve the requests of a trace as they arrive, with continuous batching.

    Example: offsim serve --trace out/traces/raw-0.safetensors --calibration out/calibration.yaml
    --slots 4 --link 60 --arrivals poisson:0.5 --max-batch 8 --prompt-tokens 64
    """
    import numpy as np

    from offsim.calibration.schema import Calibration
    from offsim.cli.placement import placing, with_auto
    from offsim.cli.policies import (
        described,
        link_speed,
        moving,
        policy_of,
        prefetching,
        resolved,
    )
    from offsim.files import read_yaml
    from offsim.simulate.arrivals import arrivals_of
    from offsim.simulate.batching import Batching
    from offsim.simulate.serving import check_online, serving
    from offsim.study.reference import layer_s
    from offsim.trace import load_trace

    policy = policy_of(codec, bound, cache, slots, scope.value)
    policy = prefetching(policy, prefetch, distance, prefetch_budget, precision, recall)
    policy = moving(policy, chunk, pipelined, channels, decoders)
    policy = placing(policy, host_memory, host_tokens, keep.value)
    check_online(policy)
    speed = link_speed(link)
    options.check_timelines(timeline, timeline_figure)
    recorded = load_trace(trace)
    known = load_trace(profile) if profile is not None else None
    arrive = arrivals_of(arrivals, np.unique(recorded.request).tolist(), arrivals_seed)
    figures = read_yaml(calibration, Calibration)
    figures.codec(*policy.key)  # refuses what was not calibrated before anything is said
    pace = resolved(speed, lambda: layer_s(figures), figures.model.expert_bytes)
    policy = with_auto(policy, host_tokens, figures, pace)
    keeps_events = timeline is not None or timeline_figure is not None
    display.note_compiling()
    with display.progress(as_json) as tell:
        served = serving(
            recorded,
            policy,
            figures,
            arrive.tolist(),
            Batching(max_batch, prompt_tokens),
            pace,
            known,
            engine.value,
            noise,
            events=keeps_events,
            tell=lambda share: tell("serving", share),
        )
    batches = {
        "steps": len(served.together),
        "mean_batch": float(served.together.mean()),
        "largest_batch": int(served.together.max()),
    }
    display.show_metrics(described(policy), served.metrics(), as_json, **batches)
    if keeps_events:
        about = options.about_run(described(policy), figures.model.name, pace)
        record = served.outcome.record()
        options.write_timelines(record, about, timeline, timeline_figure, timeline_steps)
