"""Running a policy for real, through the experts hook."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from offsim.codec import Codec, codec_named
from offsim.errors import InputError
from offsim.model.experts import ExpertShape, shape_of, top_k_of
from offsim.model.formulas import Formula, formula_of, plain
from offsim.model.generate import greedy_tokens
from offsim.model.hook import handled
from offsim.model.sampling import Chooser, likeliest
from offsim.policy.decider import live_decider
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import lookahead
from offsim.record import RunRecord
from offsim.record.times import StepTimes
from offsim.runtime.arena import Arena, Slots
from offsim.runtime.compressed import BlobArena
from offsim.runtime.devices import CPU, Device
from offsim.runtime.disk import Shelf, blobs_on_disk
from offsim.runtime.gates import Foresight, Gates
from offsim.runtime.handler import Offloaded
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.runtime.tiered import TieredArena
from offsim.trace import DECODE, PREFILL, Trace


@dataclass(frozen=True)
class Run:
    """What a real run gave.

    Attributes:
        record: steps, loads, waits and decisions, MEASURED.
        tokens: written for each request.
        times: stamps of compute, a StepTimes a step.
        notes: what else one should know of it, a sentence each.
    """

    record: RunRecord
    tokens: list[list[int]] = field(default_factory=list)
    times: list[StepTimes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run_offloaded(
    model: PreTrainedModel,
    store: ExpertStore,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    count: int,
    link_bytes_per_s: float | None = None,
    progress: Callable[[], None] = lambda: None,
    profile: Trace | None = None,
    folder: Path | None = None,
    device: Device = CPU,
    sampling: Chooser | None = None,
) -> Run:
    """Answer prompts one after the other with the experts offloaded.

    A host codec decodes in processes that import the main module, so a program calls this under
    `if __name__ == "__main__"`.

    Args:
        model: whose own experts are not used; it may have been loaded without them.
        store: its experts in host memory, under the policy's codec and bound.
        policy: codec and bound, cache and slots, prefetcher, how loads move.
        prompts: ids of each request.
        count: tokens written for each.
        link_bytes_per_s: pace of the link; None for plain copies.
        progress: called after each step.
        profile: a trace whose popular experts a cache may pin, and from which a prefetcher may
            learn.
        folder: as for `offloaded`.
        device: computes; what the model has beside its experts is copied there for the time.
        sampling: how tokens are drawn; None for greedy answers.

    Raises:
        InputError: as for `offloaded`, the gates cannot be asked ahead, the experts of the store
            are of another shape than the model's, or the host is to compute experts that have
            biases or an activation of their own.
        RunError: a load failed, or a process that decodes did not start.
    """

    def drive(handler: Offloaded) -> list[list[int]]:
        tokens = []
        with handled(model, handler), device.hosting(model, experts=False):
            for request, prompt in enumerate(prompts):

                def before(step: int, request: int = request, length: int = len(prompt)) -> None:
                    phase = DECODE if step else PREFILL
                    done = length + step - 1 if step else 0
                    handler.begin(request, phase, 1 if step else length, done)

                def after(_: int) -> None:
                    handler.end()
                    progress()

                choose = likeliest if sampling is None else sampling.of(request)
                tokens.append(greedy_tokens(model, prompt, count, before, after, choose=choose))
        return tokens

    own = shape_of(model, store.shape.dtype_bytes)
    if own != store.shape:
        raise InputError(
            f"{type(model).__name__} has {_sizes(own)}, and the store {_sizes(store.shape)}; make "
            "the store from the same model"
        )
    check_host(model, policy)
    run = partial(offloaded, store, policy, top_k_of(model), partial(Gates, model), drive)
    return run(link_bytes_per_s, profile, folder=folder, device=device, formula=formula_of(model))


def check_host(model: PreTrainedModel, policy: Policy) -> None:
    """Refuse a policy under which the host would leave out a part of what experts compute.

    Raises:
        InputError: it is to compute experts that have biases or an activation of their own.
    """
    if policy.host_tokens and formula_of(model) is not plain:
        raise InputError(
            f"the host computes SwiGLU without biases, which is not all that the experts of "
            f"{type(model).__name__} do; have the device compute all of them (host tokens 0)"
        )


def _sizes(shape: ExpertShape) -> str:
    return (
        f"{shape.layers} MoE layers of {shape.experts} experts, hidden {shape.hidden}, width "
        f"{shape.width}"
    )


def offloaded(
    store: ExpertStore,
    policy: Policy,
    top_k: int,
    foresight: Callable[[int], Foresight],
    drive: Callable[[Offloaded], list[list[int]]],
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    staged: int | None = None,
    folder: Path | None = None,
    device: Device = CPU,
    formula: Formula = plain,
) -> Run:
    """Run whatever calls experts, step by step and layer by layer, with the experts offloaded.

    Args:
        store: the experts in host memory, under the policy's codec and bound.
        policy: codec and bound, cache and slots, prefetcher, how loads move.
        top_k: experts a token and layer.
        foresight: given how many layers ahead, 0 for none, tells what their gates choose.
        drive: given the handler, begins each step, calls it once a layer and ends the step;
            returns the tokens written for each request. It has the one thread that computes.
        link_bytes_per_s: pace of the link; None for plain copies.
        profile: a trace that a cache or a prefetcher may learn from.
        staged: the most experts that one layer and step asks for; None: all of a layer.
        folder: on the disk beneath host memory, where the run makes one of its own for the time
            that it takes; None for that of temporary files.
        device: computes, and has the slots.
        formula: what experts compute beside their weights.

    Raises:
        InputError: experts are stored under another codec or bound than the policy's, cannot be
            where it says (`check_placement`), the cache or the prefetcher is an oracle or needs a
            profile, the profile is of another shape, loads cannot move as the policy says, the
            device has no kernels for the codec or no room, or blobs cannot be written to disk.
        RunError: a load failed, or a process that decodes did not start.
    """
    store.check(policy)
    for codec in store.codecs:
        check_placement(policy, codec)
    for codec in (*store.codecs, *store.coarser.codecs):
        device.check(codec)
    shape = store.shape
    decider = live_decider(
        policy,
        (shape.layers, shape.experts, top_k),
        lambda key: store.link_bytes(*key),
        profile,
        store.sizes,
    )
    gates = foresight(lookahead(policy.prefetch, policy.distance))
    arena = _arena(policy, shape, staged, device)
    store = device.hold(store)
    with ExitStack() as open_until_the_end:
        shelf, notes = None, []
        if decider.host is not None:
            files = open_until_the_end.enter_context(blobs_on_disk(store, folder))
            shelf, notes = Shelf(store, files, decider), [str(files)]
        pipeline = Pipeline(
            store,
            device.link(link_bytes_per_s),
            policy.transfer,
            shelf=shelf,
            host=policy.host_tokens > 0,
            keep=policy.keep != "decoded",
            device=device,
        )
        open_until_the_end.callback(pipeline.close)
        handler = Offloaded(decider, arena, pipeline, gates, device, formula)
        with single_compute_thread(), device.computing():
            pipeline.warm_up(device.slots(1, shape.values)[0])
            tokens = drive(handler)
    return Run(handler.record, tokens, handler.times, notes)


def _arena(policy: Policy, shape: ExpertShape, staged: int | None, device: Device) -> Slots:
    """The device's memory as a policy divides it."""
    if policy.keep == "decoded":
        return Arena(shape, sum(policy.pools(shape.layers)), staged, device)
    if policy.keep == "compressed":
        return BlobArena(shape, staged, device)
    pools = policy.pools(shape.layers)
    most = shape.layers * shape.experts // len(pools)
    kept = sum(min(policy.decoded_slots(slots), most) for slots in pools)
    return TieredArena(shape, kept, staged, device)


def check_placement(policy: Policy, codec: Codec) -> None:
    """Refuse a policy that places experts where they cannot be under its codec.

    Args:
        policy: any.
        codec: its codec.

    Raises:
        InputError: the host is to compute with blobs that the device decodes, the device is to
            keep blobs that the host decodes, the coarser blobs for misses of low weight decode
            elsewhere than the others, or they are asked for beside any of these.
    """
    low = policy.low
    if policy.placed and low is not None:
        raise InputError(
            "misses of low weight come coarse only where host memory holds all blobs, the device "
            f"computes alone and keeps experts decoded, not with {policy}"
        )
    if low is not None and codec_named(low.codec).placement != codec.placement:
        raise InputError(
            f"codec {codec} decodes on the {codec.placement} and {low.codec}, for misses of low "
            "weight, does not; take two that decode in one place"
        )
    if policy.host_tokens and codec.placement == "device" and codec.name != "raw":
        raise InputError(
            f"codec {codec} decodes on the device, so that the host cannot compute with its blobs; "
            "take raw or a host codec"
        )
    if policy.keep != "decoded" and (codec.placement == "host" or codec.name == "raw"):
        raise InputError(
            f"codec {codec} does not decode on the device, so that experts cannot be kept "
            "compressed there; take a device codec"
        )
