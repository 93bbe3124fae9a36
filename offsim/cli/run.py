"""`offsim run`: a policy for real."""

from offsim.cli import display, options


def run(
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
    link: options.LinkSpeed = "paced",
    requests: options.Requests = 2,
    tokens: options.Tokens = 24,
    seed: options.Seed = 5,
    timeline: options.Timeline = None,
    timeline_figure: options.TimelineFigure = None,
    timeline_steps: options.TimelineSteps = 20,
    as_json: options.Json = False,
) -> None:
    """Run the embedded model with its experts offloaded, on this machine.

    Example: offsim run --codec cuszp --bound 0.0078125 --slots 4 --link 60 --prefetch gate
    """
    from offsim.cli.policies import (
        described,
        link_speed,
        moving,
        policy_of,
        prefetching,
        resolved,
    )
    from offsim.policy.decider import live_decider
    from offsim.trace import load_trace

    policy = policy_of(codec, bound, cache, slots, scope.value, bounds)
    policy = prefetching(policy, prefetch, distance, prefetch_budget, precision, recall)
    policy = moving(policy, chunk, pipelined, channels, decoders)
    speed = link_speed(link)
    options.check_timelines(timeline, timeline_figure)
    known = load_trace(profile) if profile is not None else None
    shape = (1, 1, 1)
    if known is not None:
        shape = (known.layers, known.info.experts_per_layer, known.top_k)
    live_decider(policy, shape, lambda _: 0, known)  # refuses an oracle early
    with display.progress() as tell:
        tell("loading the embedded model", 0.0)
        from offsim.codec import codec_named
        from offsim.record import metrics_of
        from offsim.runtime import ExpertStore, check_transfer, run_offloaded
        from offsim.study.samplers import resident_layer_s
        from offsim.study.study import MODEL
        from offsim.study.workload import prompts
        from offsim.testbed.load import load

        check_transfer(policy.transfer, codec_named(codec))
        model = load()
        tell(f"compressing with {policy.storage}", 0.1)
        store = ExpertStore.of(model, codec_named(codec), policy.bounds or bound)
        asked = prompts(requests, seed)
        pace = resolved(speed, lambda: resident_layer_s(model, store, asked), store.shape.bytes)
        tell("running", 0.2)
        steps = iter(range(requests * tokens))
        ran = run_offloaded(
            model,
            store,
            policy,
            asked,
            tokens,
            pace,
            lambda: tell("running", 0.2 + 0.8 * next(steps) / (requests * tokens)),
            known,
        )
    display.show_metrics(
        described(policy), metrics_of(ran.record), as_json, ratio_bf16=round(store.ratio, 4)
    )
    about = options.about_run(described(policy), MODEL, pace)
    options.write_timelines(ran.record, about, timeline, timeline_figure, timeline_steps)
