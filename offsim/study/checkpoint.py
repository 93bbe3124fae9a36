"""A checkpoint of any size that answers prompts from a file, its experts read one at a time."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import date
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from offsim.calibration.schema import ModelFacts
from offsim.codec import Codec, codec_named
from offsim.codec.expert import encode_expert
from offsim.errors import InputError
from offsim.model.experts import Experts, ExpertShape
from offsim.model.hook import Fetched
from offsim.model.load import load_dense, tokenizer_of
from offsim.model.prompts import ids_of, read_prompts
from offsim.model.reader import open_experts
from offsim.policy.bounds import Bounds
from offsim.policy.policy import Policy
from offsim.runtime.arena import Arena
from offsim.runtime.devices import CPU, Device
from offsim.runtime.driven import usual_memory
from offsim.runtime.run import check_host
from offsim.runtime.store import ExpertStore
from offsim.study.prepare import Recorded, info_of
from offsim.study.subject import ModelSubject
from offsim.trace.format import TraceInfo
from offsim.trace.recorder import record, record_into
from offsim.trace.stream import streaming
from offsim.units import show_bytes


@dataclass(frozen=True)
class CheckpointSubject(ModelSubject):
    """A model without its experts, the experts, and prompts; see `checkpoint_subject`.

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

    def _blob_bytes(self, policy: Policy, enough: int) -> int:
        """Bytes of all blobs, by those of the first expert, which is read if it may matter.

        Args:
            policy: under which.
            enough: bytes that matter to nobody.
        """
        shape, total = self.experts.shape, 0
        kinds = [(policy.codec, policy.bounds.of(0, 0) if policy.bounds else policy.bound)]
        if policy.low is not None:
            kinds.append((policy.low.codec, policy.low.bound))
        if len(kinds) * shape.layers * shape.experts * shape.bytes <= enough:
            return 0
        for codec, bound in kinds:
            first = encode_expert(self.matrices(), codec_named(codec), bound)
            total += shape.layers * shape.experts * first.nbytes
        return total

    def answers(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """What was written, as texts; as ids where prompts are ids."""
        if self.tokenizer is None:
            return [" ".join(map(str, ids)) for ids in tokens]
        return [str(self.tokenizer.decode(list(ids))) for ids in tokens]

    def drawn(self, requests: int, seed: int) -> list[list[int]]:
        """The last so many prompts, so that a check of the first ones has others."""
        return list(self.prompts[-requests:])

    def longest(self, tokens: int, seed: int) -> list[list[int]]:
        """The longest prompt."""
        return [max(self.prompts, key=len)]

    def checked(self, requests: int, seed: int) -> list[list[int]]:
        """The first so many prompts."""
        return list(self.prompts[:requests])

    def recorded(
        self, store: ExpertStore, requests: Sequence[list[int]], tokens: int, lookahead: int = 0
    ) -> Recorded:
        """Record the model with the experts of a store, decoded where they are used."""
        handler = Fetched(self.model, _Decoded(store), memory_for_experts(self.model))
        with self.device.hosting(self.model, experts=False):
            info = info_of(self.name, store, f"{len(requests)} prompts")
            return Recorded(*record(self.model, requests, tokens, info, lookahead, handler))


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
    folder: Path, prompts: Path, tokens: int, device: Device = CPU
) -> CheckpointSubject:
    """Open a checkpoint; of its experts no more than headers of files are read.

    Args:
        folder: with config.json, safetensors and, for prompts that are texts, a tokenizer.
        prompts: file of them, see `read_prompts`.
        tokens: that are to be written after each.
        device: computes.

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
    return CheckpointSubject(model, name, device, experts=experts, prompts=ids, tokenizer=words)


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
    shape, model = subject.experts.shape, subject.model
    info = TraceInfo(
        model=subject.name,
        experts_per_layer=shape.experts,
        source=f"recorded by offsim on {date.today()}, {len(requests)} prompts",
        layer_bytes=(shape.bytes,) * shape.layers,
    )
    handler = Fetched(model, subject.experts, memory_for_experts(model))
    with streaming(info, path) as stream:
        record_into(stream.add, model, requests, tokens, lookahead, handler, progress, stop)
    return stream.tokens
