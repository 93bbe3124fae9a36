"""`offsim run`: a policy for real."""

from typing import TYPE_CHECKING, Any

from offsim.cli import display, options
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import Loading, Storage, grouped
from offsim.cli.timelines import Timelines

if TYPE_CHECKING:
    from offsim.study.subject import Subject


@grouped
def run(
    *,
    storage: Storage,
    loading: Loading,
    link: options.LinkSpeed = "paced",
    requests: options.Requests = 2,
    tokens: options.Tokens = 24,
    seed: options.Seed = 5,
    driven: Driven,
    timelines: Timelines,
    as_json: options.Json = False,
) -> None:
    """Run the embedded model with its experts offloaded, on this machine.

    With --trace, the routing of the first requests of a trace drives generated experts instead.

    Example: offsim run --codec cuszp --bound 0.0078125 --slots 4 --link 60 --prefetch gate
    """
    from offsim.cli.case import asked_policy
    from offsim.cli.policies import Pace, described, link_speed, resolved
    from offsim.policy.decider import live_decider
    from offsim.trace import load_trace

    policy = asked_policy(storage, loading)
    speed = link_speed(link)
    timelines.check()
    known = load_trace(loading.profile) if loading.profile is not None else None
    routing = driven.subject()
    shaped = known if routing is None else routing.trace
    shape = (1, 1, 1)
    if shaped is not None:
        shape = (shaped.layers, shaped.info.experts_per_layer, shaped.top_k)
    live_decider(policy, shape, lambda _: 0, known)  # refuses an oracle early
    if routing is not None:
        from offsim.runtime.driven import check_foresight

        check_foresight(routing.trace, policy)
        routing.check_room(policy.slots, 1, driven.budget)
        if speed is Pace.PACED:
            routing.check_measurable()
            routing.check_room(shape[1], 1, driven.budget, routing.resident_layers)
        tell_driven(routing)
    with display.progress() as tell:
        tell("loading the embedded model" if routing is None else "generating experts", 0.0)
        from offsim.codec import codec_named
        from offsim.record import metrics_of
        from offsim.runtime import check_transfer
        from offsim.study.plan import part
        from offsim.study.samplers import resident_layer_s
        from offsim.study.study import by_place, embedded

        codec = codec_named(policy.codec)
        check_transfer(policy.transfer, codec)
        subject: Subject[Any] = embedded() if routing is None else routing
        asked = subject.checked(requests, seed) if routing is None else routing.requests[:requests]
        facts = subject.facts
        storing = part(tell, 0.1, 0.3)
        store = subject.store(
            codec,
            policy.bounds or policy.bound,
            by_place(storing, f"compressing with {policy.storage}", facts.layers * facts.experts),
        )
        pace = resolved(speed, lambda: resident_layer_s(subject, store, asked), store.shape.bytes)
        running = by_place(part(tell, 0.3, 1.0), "running", subject.steps(asked, tokens))
        ran = subject.run(store, policy, asked, tokens, pace, running, known)
    stored = "bf16" if routing is None else routing.dtype
    ratio = {f"ratio_{stored}": round(store.ratio, 4)}
    display.show_metrics(described(policy), metrics_of(ran.record), as_json, **ratio)
    timelines.write(ran.record, described(policy), facts.name, pace)
