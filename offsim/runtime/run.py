"""Running a policy for real, through the experts hook."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.generate import greedy_tokens
from offsim.model.hook import handled
from offsim.policy.decider import live_decider
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.record import RunRecord
from offsim.record.times import StepTimes
from offsim.runtime.arena import Arena
from offsim.runtime.gates import Foresight, Gates
from offsim.runtime.handler import Offloaded
from offsim.runtime.link import Link
from offsim.runtime.pipeline import Pipeline
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.trace import DECODE, PREFILL, Trace


@dataclass(frozen=True)
class Run:
    """What a real run gave.

    Attributes:
        record: steps, loads, waits and decisions, MEASURED.
        tokens: written for each request.
        times: stamps of compute, a StepTimes a step.
    """

    record: RunRecord
    tokens: list[list[int]] = field(default_factory=list)
    times: list[StepTimes] = field(default_factory=list)


def run_offloaded(
    model: PreTrainedModel,
    store: ExpertStore,
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    count: int,
    link_bytes_per_s: float | None = None,
    progress: Callable[[], None] = lambda: None,
    profile: Trace | None = None,
) -> Run:
    """Answer prompts one after the other with the experts offloaded.

    Args:
        model: whose own experts are not used.
        store: its experts in host memory, under the policy's codec and bound.
        policy: codec and bound, cache and slots, prefetcher, how loads move.
        prompts: ids of each request.
        count: tokens written for each.
        link_bytes_per_s: pace of the link; None for plain copies.
        progress: called after each step.
        profile: a trace whose popular experts a cache may pin, and from which a prefetcher may
            learn.

    Raises:
        InputError: as for `offloaded`, or the gates cannot be asked ahead.
        RunError: a load failed.
    """

    def drive(handler: Offloaded) -> list[list[int]]:
        tokens = []
        with handled(model, handler):
            for request, prompt in enumerate(prompts):

                def before(step: int, request: int = request, length: int = len(prompt)) -> None:
                    phase = DECODE if step else PREFILL
                    handler.begin(request, phase, 1 if step else length)

                def after(_: int) -> None:
                    handler.end()
                    progress()

                tokens.append(greedy_tokens(model, prompt, count, before, after))
        return tokens

    top_k = model.config.num_experts_per_tok
    gates = partial(Gates, model)
    return offloaded(store, policy, top_k, gates, drive, link_bytes_per_s, profile)


def offloaded(
    store: ExpertStore,
    policy: Policy,
    top_k: int,
    foresight: Callable[[int], Foresight],
    drive: Callable[[Offloaded], list[list[int]]],
    link_bytes_per_s: float | None = None,
    profile: Trace | None = None,
    staged: int | None = None,
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

    Raises:
        InputError: experts are to be on disk, computed on the host, kept compressed or loaded in
            several precisions, they are stored under another codec or bound than the policy's,
            the cache or the prefetcher is an oracle or needs a profile, the profile is of another
            shape, or loads cannot move as the policy says.
        RunError: a load failed.
    """
    if policy.placed:
        raise InputError(
            "a real run has all blobs in host memory, computes on the device alone and keeps "
            f"experts decoded there, not {policy}; simulate it"
        )
    if policy.low is not None:
        raise InputError(f"a real run loads all misses in one precision, not {policy}; simulate it")
    store.check(policy)
    shape = store.shape
    sizes = (shape.layers, shape.experts, top_k)
    decider = live_decider(policy, sizes, lambda key: store.link_bytes(*key), profile)
    kind = prefetcher_named(policy.prefetch)
    gates = foresight(policy.distance if kind is not None and kind.gated else 0)
    arena = Arena(shape, policy.slots, staged)
    pipeline = Pipeline(store, Link(link_bytes_per_s), policy.transfer, ahead=kind is not None)
    handler = Offloaded(decider, arena, pipeline, gates)
    try:
        with single_compute_thread():
            tokens = drive(handler)
    finally:
        pipeline.close()
    return Run(handler.record, tokens, handler.times)
