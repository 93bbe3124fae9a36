"""`offsim simulate`: what a policy would take."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options


def simulate(
    trace: Annotated[Path, typer.Option(help="Trace file.")],
    calibration: options.CalibrationFile,
    codec: options.Codec = "raw",
    bound: options.Bound = 0.0,
    bounds: options.BoundsFile = None,
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
    engine: options.Engine = options.EngineName.FAST,
    noise: options.Noise = None,
    timeline: options.Timeline = None,
    timeline_figure: options.TimelineFigure = None,
    timeline_steps: options.TimelineSteps = 20,
    as_json: options.Json = False,
) -> None:
    """Replay a trace under a policy on a calibrated machine.

    Example: offsim simulate --trace out/traces/raw-0.safetensors --calibration
    out/calibration.yaml --codec cuszp --bound 0.0078125 --slots 4 --link 60
    """
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
    from offsim.record import metrics_of
    from offsim.simulate import simulate as replay
    from offsim.simulate.mixture import stored
    from offsim.study.reference import layer_s
    from offsim.trace import load_trace

    policy = policy_of(codec, bound, cache, slots, scope.value, bounds)
    policy = prefetching(policy, prefetch, distance, prefetch_budget, precision, recall)
    policy = moving(policy, chunk, pipelined, channels, decoders)
    policy = placing(policy, host_memory, host_tokens, keep.value)
    speed = link_speed(link)
    options.check_timelines(timeline, timeline_figure)
    recorded = load_trace(trace)
    known = load_trace(profile) if profile is not None else None
    if (recorded.info.codec, recorded.info.bound) not in {("raw", 0.0), policy.key}:
        typer.echo(
            f"offsim: note: the trace is of a model under {recorded.info.codec} "
            f"{recorded.info.bound:g}; routing under {policy.storage} may differ",
            err=True,
        )
    figures = read_yaml(calibration, Calibration)
    stored(figures, policy)  # refuses what was not calibrated before anything is said
    pace = resolved(speed, lambda: layer_s(figures), figures.model.expert_bytes)
    policy = with_auto(policy, host_tokens, figures, pace)
    display.note_compiling()
    record = replay(recorded, policy, figures, pace, known, engine.value, noise)
    display.show_metrics(described(policy), metrics_of(record), as_json)
    about = options.about_run(described(policy), figures.model.name, pace)
    options.write_timelines(record, about, timeline, timeline_figure, timeline_steps)
