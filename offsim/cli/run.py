"""`offsim run`: a policy for real."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import devices, display, options
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import PLACEMENT, Loading, Placement, Storage, grouped
from offsim.cli.precision import LowBelow, LowBlob, loading_low
from offsim.cli.timelines import Timelines

if TYPE_CHECKING:
    from offsim.policy.policy import Policy
    from offsim.runtime import ExpertStore
    from offsim.study.subject import DrivenSubject, Subject


@grouped
def run(
    *,
    storage: Storage,
    loading: Loading,
    placement: Placement,
    disk: Annotated[
        Path | None,
        typer.Option(
            help="Folder on the disk beneath --host-memory, where blobs are while it runs; that of "
            "temporary files by default.",
            rich_help_panel=PLACEMENT,
        ),
    ] = None,
    low: LowBlob = None,
    low_below: LowBelow = None,
    link: options.LinkSpeed = "paced",
    device: devices.DeviceOption = devices.Device.CPU,
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
    from offsim.cli.placement import with_memory
    from offsim.cli.policies import Pace, described, link_speed, resolved
    from offsim.policy.decider import live_decider
    from offsim.policy.tiers import Sizes
    from offsim.runtime.devices import device_named
    from offsim.trace import load_trace

    policy = _asked(storage, loading, placement, disk)
    policy = loading_low(policy, low, low_below)
    memory = placement.device_memory
    speed = link_speed(link)
    timelines.check()
    computes = device_named(device)
    known = load_trace(loading.profile) if loading.profile is not None else None
    routing = driven.subject()
    shaped = known if routing is None else routing.trace
    shape = (1, 1, 1)
    if shaped is not None:
        shape = (shaped.layers, shaped.info.experts_per_layer, shaped.top_k)
    nothing = Sizes(lambda _: 0, 0)
    live_decider(policy, shape, lambda _: 0, known, nothing)  # refuses an oracle early
    if routing is not None:
        policy = with_memory(policy, memory, routing.facts)
        _check_driven(routing, policy, driven.budget, paced=speed is Pace.PACED)
        tell_driven(routing)
    with display.progress() as tell:
        tell("loading the embedded model" if routing is None else "generating experts", 0.0)
        from offsim.codec import codec_named
        from offsim.record import metrics_of
        from offsim.runtime import check_placement, check_transfer
        from offsim.study.plan import part
        from offsim.study.samplers import resident_layer_s
        from offsim.study.study import by_place, embedded

        codec = codec_named(policy.codec)
        check_transfer(policy.transfer)
        check_placement(policy, codec)
        computes.check(codec)
        subject: Subject[Any] = replace(embedded() if routing is None else routing, device=computes)
        asked = subject.checked(requests, seed) if routing is None else routing.requests[:requests]
        facts = subject.facts
        policy = with_memory(policy, memory, facts)
        store = _stored(subject, policy, part(tell, 0.1, 0.3))
        pace = resolved(speed, lambda: resident_layer_s(subject, store, asked), store.shape.bytes)
        running = by_place(part(tell, 0.3, 1.0), "running", subject.steps(asked, tokens))
        ran = subject.run(store, policy, asked, tokens, pace, running, known, disk)
    for note in ran.notes:
        typer.echo(f"offsim: note: {note}", err=True)
    stored = "bf16" if routing is None else routing.dtype
    ratio = {f"ratio_{stored}": round(store.ratio, 4)}
    display.show_metrics(described(policy), metrics_of(ran.record), as_json, None, **ratio)
    timelines.write(ran.record, described(policy), facts.name, pace)


def _check_driven(routing: "DrivenSubject", policy: "Policy", nbytes: int, *, paced: bool) -> None:
    """Refuse what a trace cannot drive, or what takes more than so many bytes.

    Raises:
        InputError: it cannot, or may take more; or a pace is to be measured on too little.
    """
    from offsim.runtime.driven import check_foresight

    check_foresight(routing.trace, policy)
    stores, budget = 1 if policy.low is None else 2, _budget(nbytes, policy, routing)
    routing.check_room(policy.slots, stores, budget)
    if paced:
        routing.check_measurable()
        routing.check_room(routing.facts.experts, stores, budget, routing.resident_layers)


def _stored(subject: "Subject[Any]", policy: "Policy", tell: "display.Tell") -> "ExpertStore":
    """The experts as the policy has them, with coarser blobs where it loads such."""
    from offsim.codec import codec_named
    from offsim.study.study import by_place

    places = subject.facts.layers * subject.facts.experts
    told = by_place(tell, f"compressing with {policy.storage}", places)
    store = subject.store(codec_named(policy.codec), policy.bounds or policy.bound, told)
    if policy.low is None:
        return store
    told = by_place(tell, f"compressing with {policy.low.codec}", places)
    coarse = subject.store(codec_named(policy.low.codec), policy.low.bound, told)
    return replace(store, low=coarse)


def _budget(nbytes: int, policy: "Policy", routing: "DrivenSubject") -> int:
    """What is left of so many bytes beside what is read from disk, which has memory of its own."""
    if policy.host_bytes is None:
        return nbytes
    facts = routing.facts
    return max(
        0, nbytes - min(policy.host_bytes, facts.layers * facts.experts * facts.expert_bytes)
    )


def _asked(storage: Storage, loading: Loading, placement: Placement, disk: Path | None) -> "Policy":
    """The policy of the options, but for a coarser blob.

    Raises:
        InputError: as for `asked_policy`, `auto` tokens, or a folder that is not there or that
            nothing is read from.
    """
    from offsim.cli.case import asked_policy
    from offsim.cli.placement import AUTO
    from offsim.errors import InputError

    if placement.host_tokens == AUTO:
        raise InputError(
            f"--host-tokens {AUTO} goes by a calibration, which a run has not; give a number of "
            "tokens"
        )
    policy = asked_policy(storage, loading, placement)
    if disk is not None and policy.host_bytes is None:
        raise InputError("--disk is of host memory with a size; give --host-memory")
    if disk is not None and not disk.is_dir():
        raise InputError(f"--disk {disk}: there is no such folder; make it, or name another")
    return policy
