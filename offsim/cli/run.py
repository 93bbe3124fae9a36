"""`offsim run`: a policy for real."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import devices, display, options
from offsim.cli.driven import Driven, tell_driven
from offsim.cli.groups import PLACEMENT, Loading, Placement, Storage, grouped
from offsim.cli.own_model import PANEL, Drawing, OwnModel
from offsim.cli.precision import LowBelow, LowBlob, loading_low
from offsim.cli.timelines import Timelines

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from offsim.calibration.schema import ModelFacts
    from offsim.policy.policy import Policy
    from offsim.runtime import ExpertStore
    from offsim.runtime.devices import Device
    from offsim.runtime.run import Run
    from offsim.study.subject import DrivenSubject, Subject
    from offsim.trace import Trace

REQUESTS = 2
"""That run where nothing is said."""


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
    requests: Annotated[
        int | None,
        typer.Option(
            help=f"Requests, of mixed tasks: {REQUESTS}; or the first so many prompts: all.", min=1
        ),
    ] = None,
    tokens: options.Tokens = 24,
    seed: options.Seed = None,
    driven: Driven,
    own: OwnModel,
    drawing: Drawing,
    experts: Annotated[
        Path | None,
        typer.Option(
            help="Folder of its compressed experts (`offsim compress`), which says codec and "
            "bounds: nothing is compressed, and blobs stay on the disk.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    timelines: Timelines,
    as_json: options.Json = False,
) -> None:
    """Run the embedded model with its experts offloaded, on this machine.

    With --trace, the routing of the first requests of a trace drives generated experts instead;
    with --model, a checkpoint answers the prompts of a file, its experts read one at a time, or
    out of the folder that `offsim compress` made of them.

    Example: offsim run --codec cuszp --bound 0.0078125 --slots 4 --link 60 --prefetch gate
    """
    from offsim.cli.placement import with_memory
    from offsim.cli.policies import Pace, described, link_speed, resolved
    from offsim.runtime.devices import device_named
    from offsim.trace import load_trace

    shelved = None if experts is None else own.shelved(experts)
    policy = loading_low(_asked(storage, loading, placement, disk, shelved), low, low_below)
    memory = placement.device_memory
    speed = link_speed(link)
    timelines.check()
    computes = device_named(device)
    known = load_trace(loading.profile) if loading.profile is not None else None
    routing = driven.subject()
    sampling = drawing.sampling(own, seed)
    is_own = _checked(own, routing, seed if sampling is None else None)
    _check_policy(policy, known, known if routing is None else routing.trace)
    if routing is not None:
        policy = with_memory(policy, memory, routing.facts)
        _check_driven(routing, policy, driven.budget, paced=speed is Pace.PACED)
        tell_driven(routing)
    with display.progress() as tell:
        tell("loading the model" if routing is None else "generating experts", 0.0)
        from offsim.codec import codec_named
        from offsim.runtime import check_placement, check_transfer
        from offsim.study.compute_sampler import resident_layer_s
        from offsim.study.plan import part
        from offsim.study.study import by_place

        codec = codec_named(policy.codec)
        check_transfer(policy.transfer)
        check_placement(policy, codec)
        computes.check(codec)
        opened = own.subject(tokens, computes, sampling) if is_own else None
        subject = _subject(opened or routing, computes)
        asked = _requests(subject, requests, seed)
        facts = subject.facts
        policy = with_memory(policy, memory, facts)
        if opened is not None:
            most = _most_slots(policy, facts, paced=speed is Pace.PACED)
            opened.check(policy, most, held=shelved is None)
        store = _stored(subject, policy, part(tell, 0.1, 0.3), shelved)
        pace = resolved(speed, lambda: resident_layer_s(subject, store, asked), store.shape.bytes)
        running = by_place(part(tell, 0.3, 1.0), "running", subject.steps(asked, tokens))
        ran = subject.run(store, policy, asked, tokens, pace, running, known, disk)
    for note in ran.notes:
        typer.echo(f"offsim: note: {note}", err=True)
    dtype = subject.matrices()[0].dtype
    answers = [] if opened is None else opened.answers(ran.tokens)
    _show(described(policy), ran, (dtype, store.ratio), answers, as_json)
    kept = store.sizes.kept(policy.keep)
    timelines.write(ran.record, described(policy), facts.name, pace, kept)


def _show(
    title: str,
    ran: "Run",
    ratio: "tuple[torch.dtype, float]",
    answers: "Sequence[str]",
    as_json: bool,
) -> None:
    """Print what a run gave, its ratio against the stored dtype, and what a checkpoint answered."""
    from offsim.codec.blob import DTYPE_NAMES
    from offsim.record import metrics_of

    more: dict[str, Any] = {f"ratio_{DTYPE_NAMES[ratio[0]]}": round(ratio[1], 4)}
    if answers and as_json:
        more["answers"] = list(answers)
    display.show_metrics(title, metrics_of(ran.record), as_json, None, **more)
    if answers and not as_json:
        display.show_facts("Answers", {f"prompt {at}": said for at, said in enumerate(answers, 1)})


def _check_policy(policy: "Policy", known: "Trace | None", shaped: "Trace | None") -> None:
    """Refuse early what no run can do, such as an oracle.

    Args:
        policy: asked for.
        known: profile that it may learn from.
        shaped: trace of the experts that will run, where there is one.

    Raises:
        InputError: it is one, or needs another profile.
    """
    from offsim.policy.decider import live_decider
    from offsim.policy.tiers import Sizes

    shape = (1, 1, 1)
    if shaped is not None:
        shape = (shaped.layers, shaped.info.experts_per_layer, shaped.top_k)
    live_decider(policy, shape, lambda _: 0, known, Sizes(lambda _: 0, 0))


def _checked(own: OwnModel, routing: "DrivenSubject | None", seed: int | None) -> bool:
    """Whether a checkpoint runs.

    Raises:
        InputError: a trace is to drive at the same time, a seed that draws nothing, or as for
            `OwnModel.check`.
    """
    from offsim.errors import InputError

    own.check(seed)
    own.check_alone(routing)
    if routing is not None and seed is not None:
        raise InputError(
            "--seed draws prompts for the embedded model, and --trace has the requests; leave "
            "--seed out"
        )
    return own.model is not None


def _subject(given: "Subject[Any] | None", device: "Device") -> "Subject[Any]":
    """What runs on a device; the embedded model where nothing is given."""
    from offsim.study.study import embedded
    from offsim.study.subject import DrivenSubject, ModelSubject

    subject = embedded() if given is None else given
    assert isinstance(subject, ModelSubject | DrivenSubject)
    return replace(subject, device=device)


def _requests(subject: "Subject[Any]", count: int | None, seed: int | None) -> "Sequence[Any]":
    """The first so many prompts of a file or requests of a trace, or drawn prompts."""
    from offsim.study.checkpoint import CheckpointSubject
    from offsim.study.subject import DrivenSubject

    if isinstance(subject, CheckpointSubject):
        return subject.prompts[:count]
    if isinstance(subject, DrivenSubject):
        return subject.requests[: count or REQUESTS]
    return subject.checked(count or REQUESTS, options.SEED if seed is None else seed)


def _check_driven(routing: "DrivenSubject", policy: "Policy", nbytes: int, *, paced: bool) -> None:
    """Refuse what a trace cannot drive, or what takes more than so many bytes.

    Raises:
        InputError: it cannot, or may take more; or a pace is to be measured on too little.
    """
    from offsim.runtime.driven import check_foresight

    check_foresight(routing.trace, policy)
    stores, budget = 1 if policy.low is None else 2, _budget(nbytes, policy, routing)
    routing.check_room(sum(policy.pools(routing.facts.layers)), stores, budget)
    if paced:
        routing.check_measurable()
        part = routing.resident_layers
        routing.check_room(part * routing.facts.experts, stores, budget, part)


def _most_slots(policy: "Policy", facts: "ModelFacts", *, paced: bool) -> int:
    """Experts that all layers together keep: all of them where a pace is measured so first."""
    return facts.layers * facts.experts if paced else sum(policy.pools(facts.layers))


def _stored(
    subject: "Subject[Any]", policy: "Policy", tell: "display.Tell", shelved: "ExpertStore | None"
) -> "ExpertStore":
    """The experts as the policy has them, with coarser blobs where it loads such.

    Args:
        subject: whose experts.
        policy: codec and bounds.
        tell: of progress.
        shelved: the experts where they are compressed already.
    """
    from offsim.codec import codec_named
    from offsim.study.study import by_place

    places = subject.facts.layers * subject.facts.experts
    store = shelved
    if store is None:
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


def _asked(
    storage: Storage,
    loading: Loading,
    placement: Placement,
    disk: Path | None,
    shelved: "ExpertStore | None",
) -> "Policy":
    """The policy of the options, but for a coarser blob.

    Raises:
        InputError: as for `asked_policy`, `auto` tokens, a codec or bounds beside those of a folder
            of experts, or a folder that is not there or that nothing is read from.
    """
    from offsim.cli.case import asked_policy
    from offsim.cli.placement import AUTO
    from offsim.errors import InputError

    if placement.host_tokens == AUTO:
        raise InputError(
            f"--host-tokens {AUTO} goes by a calibration, which a run has not; give a number of "
            "tokens"
        )
    if shelved is not None and storage != Storage():
        raise InputError("--experts says codec and bounds; leave --codec, --bound and --bounds out")
    stored = None if shelved is None else shelved.policy()
    policy = asked_policy(storage, loading, placement, stored)
    if disk is not None and policy.host_bytes is None:
        raise InputError("--disk is of host memory with a size; give --host-memory")
    if disk is not None and not disk.is_dir():
        raise InputError(f"--disk {disk}: there is no such folder; make it, or name another")
    return policy
