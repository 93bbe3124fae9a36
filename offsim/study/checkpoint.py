"""A checkpoint of any size that answers prompts from a file, its experts read one at a time."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import date
from pathlib import Path
from random import Random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from offsim.calibration.schema import ModelFacts
from offsim.codec import Codec, codec_named
from offsim.codec.bounds import Bound
from offsim.codec.expert import encode_expert
from offsim.errors import InputError
from offsim.model.depth import keep_first
from offsim.model.experts import Experts, ExpertShape, FirstExperts
from offsim.model.hook import Fetched
from offsim.model.load import load_dense, tokenizer_of
from offsim.model.prompts import ids_of, read_prompts
from offsim.model.reader import open_experts
from offsim.model.sampling import Sampling
from offsim.policy.bounds import Bounds, bounds_of, codecs_of
from offsim.policy.policy import Policy
from offsim.runtime.arena import Arena
from offsim.runtime.devices import CPU, Device
from offsim.runtime.driven import usual_memory
from offsim.runtime.run import check_host
from offsim.runtime.store import ExpertStore
from offsim.study.prepare import Key, Recorded, info_of
from offsim.study.subject import ModelSubject
from offsim.trace.format import TraceInfo
from offsim.trace.recorder import record, record_into
from offsim.trace.stream import streaming
from offsim.units import show_bytes


@dataclass(frozen=True)
class CheckpointSubject(ModelSubject):
    """A model without its experts, the experts, and prompts; see `checkpoint_subject`.

    The first half of the prompts is for checks and the others for calibrations, so that nothing is
    calibrated on what is checked; a single one serves both.

    Attributes:
        experts: of the model, read where they are needed.
        prompts: token ids of each request.
        tokenizer: that made them of texts; None where they came as ids.
    """

    _: KW_ONLY
    experts: Experts
    prompts: Sequence[list[int]]
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def facts(self) -> ModelFacts:
        """Name and sizes, in the stored dtype of the checkpoint."""
        return super().facts.model_copy(update={"dtype_bytes": self.experts.shape.dtype_bytes})

    def matrices(self) -> Sequence[torch.Tensor]:
        """Gate, up and down of the first expert, in their stored dtype."""
        return self.experts.matrices(0, 0)

    def store(
        self, codec: Codec, bound: float | Bounds, progress: Callable[[], None] = lambda: None
    ) -> ExpertStore:
        """The experts under a codec and bound, read one after the other."""
        return ExpertStore.holding(self.experts, codec, bound, progress)

    def check(self, policy: Policy, slots: int, *, held: bool = True) -> None:
        """Refuse what cannot run, before experts are read.

        Args:
            policy: asked for.
            slots: the most experts that all layers together keep in any run; more than those of the
                policy where a pace is measured with all of them first.
            held: whether memory holds all blobs, rather than a folder on the disk.

        Raises:
            InputError: with the model they may take more than three quarters of the machine's
                memory, or as for `check_host`.
        """
        check_host(self.model, policy)
        shape = self.experts.shape
        asked, room = Arena.bytes_of(shape, slots, shape.experts), memory_for_experts(self.model)
        what, remedy = f"{slots} slots take {show_bytes(asked)} in float32", "ask for fewer"
        if slots > sum(policy.pools(shape.layers)):
            what = f"--link paced first runs with {slots} slots, {show_bytes(asked)} in float32"
            remedy = "give --link plain or a number of MB/s"
        if asked > room:
            raise InputError(f"{what}, and there is room for {show_bytes(room)}; {remedy}")
        blobs = self._blob_bytes(policy, room - asked) if held else 0
        if asked + blobs > room:
            raise InputError(
                f"{what}, all blobs about {show_bytes(blobs)} (ESTIMATED from the first expert), "
                f"and there is room for {show_bytes(room)}; make a folder of them with `offsim "
                "compress` and give it as --experts"
            )

    def check_room(self, keys: Sequence[Key], remedy: str = "") -> None:
        """Refuse to hold all experts in slots, and under each codec and bound, without the room.

        Args:
            keys: codecs and bounds.
            remedy: what else can be done than to ask for fewer of them, as a part of a sentence.

        Raises:
            InputError: with the model they may take more than three quarters of the machine's
                memory.
        """
        shape = self.experts.shape
        places = shape.layers * shape.experts
        slots, room = Arena.bytes_of(shape, places, shape.experts), memory_for_experts(self.model)
        if slots + len(keys) * places * shape.bytes <= room:
            return
        blobs = [self._all_bytes(codec_named(codec), bound) for codec, bound in keys]
        if slots + sum(blobs) <= room:
            return
        fit = max(n for n in range(len(keys) + 1) if slots + sum(blobs[:n]) <= room or not n)
        named = ", ".join(f"{codec} {bound:g}" if bound else codec for codec, bound in keys[:fit])
        fewer = f"ask for fewer --codec ({named} would fit)" if fit > 1 else ""
        remedies = (
            ", or ".join(filter(None, (fewer, remedy))) or "it takes a machine with more memory"
        )
        raise InputError(
            f"the {places} experts of {shape.layers} MoE layers take {show_bytes(slots)} in "
            f"float32 slots and {show_bytes(sum(blobs))} as blobs (ESTIMATED from the first "
            f"expert), and there is room for {show_bytes(room)}; {remedies}"
        )

    def check_measurable(self) -> None:
        """Refuse what a calibration has nothing to measure on.

        Raises:
            InputError: a single MoE layer.
        """
        if self.experts.shape.layers < 2:
            raise InputError(
                f"{self.name} has one MoE layer, and compute is measured from one to the next; it "
                "takes a model of 2 or more"
            )

    def first(self, layers: int) -> "CheckpointSubject":
        """The model without what is behind its first so many MoE layers.

        The model of this subject is cut too, so that memory holds no more than is needed.

        Raises:
            InputError: it cannot be cut.
        """
        keep_first(self.model, layers)
        return replace(self, experts=FirstExperts(self.experts, layers))

    def _blob_bytes(self, policy: Policy, enough: int) -> int:
        """Bytes of all blobs, by those of the first expert, which is read if it may matter.

        Args:
            policy: under which.
            enough: bytes that matter to nobody.
        """
        shape = self.experts.shape
        usual = codec_named(policy.codec)
        kinds: list[tuple[Codec | list[Codec], list[Bound | None] | float]] = [
            (usual, policy.bound)
        ]
        if policy.bounds is not None:
            forms = policy.bounds.of(0, 0)
            kinds = [(codecs_of(forms, usual), bounds_of(forms))]
        if policy.low is not None:
            kinds.append((codec_named(policy.low.codec), policy.low.bound))
        if len(kinds) * shape.layers * shape.experts * shape.bytes <= enough:
            return 0
        return sum(self._all_bytes(*kind) for kind in kinds)

    def _all_bytes(
        self, codec: Codec | Sequence[Codec], bound: Sequence[Bound | None] | float
    ) -> int:
        """Bytes of all blobs under codecs and bounds, by those of the first expert."""
        shape = self.experts.shape
        first = encode_expert(self.matrices(), codec, bound)
        return shape.layers * shape.experts * first.nbytes

    def answers(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """What was written, as texts; as ids where prompts are ids."""
        if self.tokenizer is None:
            return [" ".join(map(str, ids)) for ids in tokens]
        return [str(self.tokenizer.decode(list(ids))) for ids in tokens]

    def drawn(self, requests: int, seed: int) -> list[list[int]]:
        """Of the second half of the prompts."""
        later = self.prompts[len(self.prompts) // 2 :]
        return Random(f"prompts/{seed}").choices(later, k=requests)

    def longest(self, tokens: int, seed: int) -> list[list[int]]:
        """The longest prompt."""
        return [max(self.prompts, key=len)]

    def checked(self, requests: int, seed: int) -> list[list[int]]:
        """The first ones of the first half; there is nothing to draw."""
        return list(self.prompts[: max(1, len(self.prompts) // 2)][:requests])

    def recorded(
        self, store: ExpertStore, requests: Sequence[list[int]], tokens: int, lookahead: int = 0
    ) -> Recorded:
        """Record the model with the experts of a store, decoded where they are used."""
        handler = Fetched(self.model, _Decoded(store), memory_for_experts(self.model))
        with self.device.hosting(self.model, experts=False):
            info = info_of(self.name, store, f"{len(requests)} prompts")
            found = record(self.model, requests, tokens, info, lookahead, handler, self.sampling)
        return Recorded(*found)


@dataclass(frozen=True)
class _Decoded:
    """The experts of a store as they are once they are decoded; fulfils `Experts`."""

    store: ExpertStore

    @property
    def shape(self) -> ExpertShape:
        return self.store.shape

    def identity(self, layer: int, expert: int) -> Hashable:
        return id(self.store.blobs[layer][expert])

    def matrices(self, layer: int, expert: int) -> Sequence[torch.Tensor]:
        blob = self.store.blobs[layer][expert]
        return [blob.decoded(number) for number in range(len(blob.blobs))]


def dense_bytes(model: PreTrainedModel) -> int:
    """Bytes of what a model has in memory."""
    tensors = (tensor for tensor in model.parameters() if not tensor.is_meta)
    return sum(tensor.nbytes for tensor in tensors)


def memory_for_experts(model: PreTrainedModel) -> int:
    """Bytes for experts beside what is left of a model: what a run may take without the latter."""
    return max(0, usual_memory() - dense_bytes(model))


def checkpoint_subject(
    folder: Path,
    prompts: Path,
    tokens: int,
    device: Device = CPU,
    sampling: Sampling | None = None,
) -> CheckpointSubject:
    """Open a checkpoint; of its experts no more than headers of files are read.

    Args:
        folder: with config.json, safetensors and, for prompts that are texts, a tokenizer.
        prompts: file of them, see `read_prompts`.
        tokens: that are to be written after each.
        device: computes.
        sampling: how tokens are drawn; None for greedy answers.

    Raises:
        InputError: a file cannot be used, or a prompt is not for this model.
    """
    asked = read_prompts(prompts)
    experts = open_experts(folder)
    model = load_dense(folder)
    config = model.config.get_text_config()
    room = config.max_position_embeddings - tokens
    texts = any(isinstance(prompt, str) for prompt in asked)
    words = tokenizer_of(folder) if texts else None
    ids = ids_of(asked, config.vocab_size, room, words)
    name = folder.resolve().name
    return CheckpointSubject(
        model, name, device, sampling, experts=experts, prompts=ids, tokenizer=words
    )


def recorded_to(
    path: Path,
    subject: CheckpointSubject,
    requests: Sequence[list[int]],
    tokens: int,
    lookahead: int = 0,
    progress: Callable[[], None] = lambda: None,
    stop: Collection[int] = (),
) -> int:
    """Record a checkpoint as it is into a trace file, with the memory of a part of the trace.

    Args:
        path: of the file, written whole or not at all.
        subject: whose router is recorded.
        requests: ids of each prompt.
        tokens: written for each.
        lookahead: how many layers ahead the routers are asked; 0 leaves the array out.
        progress: called after each step.
        stop: tokens that end what is written for a prompt.

    Returns:
        Tokens of the trace.

    Raises:
        InputError: as for `offsim.trace.recorder.record`, or the file cannot be written.
    """
    shape, model, sampling = subject.experts.shape, subject.model, subject.sampling
    drawn = "" if sampling is None else f", tokens {sampling}"
    info = TraceInfo(
        model=subject.name,
        experts_per_layer=shape.experts,
        source=f"recorded by offsim on {date.today()}, {len(requests)} prompts{drawn}",
        layer_bytes=(shape.bytes,) * shape.layers,
    )
    handler = Fetched(model, subject.experts, memory_for_experts(model))
    with streaming(info, path) as stream:
        record_into(
            stream.add, model, requests, tokens, lookahead, handler, progress, stop, sampling
        )
    return stream.tokens
