"""What a calibration measures and a check runs.

A model with its prompts, or a trace that drives generated experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

import torch
from transformers import PreTrainedModel

from offsim.calibration.schema import ModelFacts
from offsim.codec import Codec
from offsim.codec.blob import DTYPE_NAMES
from offsim.errors import InputError
from offsim.model.experts import ExpertShape, expert_modules, matrices_of, shape_of, top_k_of
from offsim.model.formulas import formula_of, plain
from offsim.model.sampling import Sampling
from offsim.policy.bounds import Bounds
from offsim.policy.policy import Policy
from offsim.runtime.devices import CPU, Device
from offsim.runtime.driven import check_fits, check_memory, most_at_once, run_driven
from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore
from offsim.study.prepare import Recorded, recorded
from offsim.study.workload import prompts
from offsim.testbed.generated import GeneratedModel, beyond_cache
from offsim.trace import DECODE, Trace, steps_of
from offsim.trace.cut import cut, joined, split

Request = TypeVar("Request")
FEWEST_IDS = 5
"""Of a solved example: its end of line, a prompt and an answer."""
FEWEST_LAYERS = 3
"""That a calibration runs: what is lost from layer to layer takes two pairs of them."""


class Subject(Protocol[Request]):
    """Requests that can be run for real under any policy, and the experts that they take."""

    @property
    def facts(self) -> ModelFacts:
        """Name and sizes."""

    @property
    def device(self) -> Device:
        """That computes."""

    @property
    def lookahead(self) -> int:
        """How many layers ahead gates can be asked."""

    @property
    def host_computes(self) -> bool:
        """Whether the host can compute its experts, see `offsim.runtime.run.check_host`."""

    def matrices(self) -> Sequence[torch.Tensor]:
        """Gate, up and down of one expert, in their stored dtype."""

    def store(
        self, codec: Codec, bound: float | Bounds, progress: Callable[[], None] = lambda: None
    ) -> ExpertStore:
        """The experts under a codec and bound; arguments as of `ExpertStore.of`."""

    def resident(self, store: ExpertStore) -> ExpertStore:
        """As many of the first layers of a store as a calibration runs with all in slots."""

    def drawn(self, requests: int, seed: int) -> list[Request]:
        """So many requests for a calibration, the same for the same seed."""

    def longest(self, tokens: int, seed: int) -> list[Request]:
        """One whose context is as long as can be with so many tokens; none if nothing attends."""

    def checked(self, requests: int, seed: int) -> list[Request]:
        """At most so many requests for a check; not those of a calibration."""

    def steps(self, requests: Sequence[Request], tokens: int) -> int:
        """Steps that a run of these requests has."""

    def run(
        self,
        store: ExpertStore,
        policy: Policy,
        requests: Sequence[Request],
        tokens: int,
        link_bytes_per_s: float | None = None,
        progress: Callable[[], None] = lambda: None,
        profile: Trace | None = None,
        folder: Path | None = None,
    ) -> Run:
        """Run requests, numbered from 0, each for so many output tokens.

        `folder` is as for `offsim.runtime.run.offloaded`.

        Raises:
            InputError: as `offsim.runtime.run.offloaded`.
            RunError: likewise.
        """

    def recorded(
        self, store: ExpertStore, requests: Sequence[Request], tokens: int, lookahead: int = 0
    ) -> Recorded:
        """What the router does, as the store leaves the experts; gates asked as far ahead."""


@dataclass(frozen=True)
class ModelSubject:
    """A model that answers prompts of the embedded tasks.

    Attributes:
        model: with its experts resident.
        name: of it.
        device: that computes.
        sampling: how tokens are drawn; None for greedy answers.
    """

    model: PreTrainedModel
    name: str
    device: Device = CPU
    sampling: Sampling | None = None

    @property
    def facts(self) -> ModelFacts:
        """Name and sizes."""
        return _facts(self.name, shape_of(self.model), top_k_of(self.model))

    @property
    def lookahead(self) -> int:
        """All later layers."""
        return self.facts.layers - 1

    @property
    def host_computes(self) -> bool:
        """Where they are SwiGLU without biases."""
        return formula_of(self.model) is plain

    def matrices(self) -> Sequence[torch.Tensor]:
        """Gate, up and down of the first expert, bf16."""
        module = expert_modules(self.model)[0]
        return [weights.to(torch.bfloat16).contiguous() for weights in matrices_of(module, 0)]

    def store(
        self, codec: Codec, bound: float | Bounds, progress: Callable[[], None] = lambda: None
    ) -> ExpertStore:
        """Its experts under a codec and bound."""
        return ExpertStore.of(self.model, codec, bound, progress=progress)

    def resident(self, store: ExpertStore) -> ExpertStore:
        """All layers: a prompt passes all of them."""
        return store

    def drawn(self, requests: int, seed: int) -> list[list[int]]:
        """Prompts of mixed tasks."""
        return prompts(requests, seed)

    def longest(self, tokens: int, seed: int) -> list[list[int]]:
        """The end of a prompt of many solved examples."""
        room = self.model.config.max_position_embeddings - tokens
        return [prompts(1, seed, examples=room // FEWEST_IDS)[0][-room:]]

    def checked(self, requests: int, seed: int) -> list[list[int]]:
        """Likewise; with another seed they are other prompts."""
        return prompts(requests, seed)

    def steps(self, requests: Sequence[list[int]], tokens: int) -> int:
        """One for each token that is written."""
        return len(requests) * tokens

    def run(
        self,
        store: ExpertStore,
        policy: Policy,
        requests: Sequence[list[int]],
        tokens: int,
        link_bytes_per_s: float | None = None,
        progress: Callable[[], None] = lambda: None,
        profile: Trace | None = None,
        folder: Path | None = None,
    ) -> Run:
        """Answer prompts."""
        run = partial(run_offloaded, self.model, store, policy, requests, tokens)
        return run(link_bytes_per_s, progress, profile, folder, self.device, self.sampling)

    def recorded(
        self, store: ExpertStore, requests: Sequence[list[int]], tokens: int, lookahead: int = 0
    ) -> Recorded:
        """Record the model as the store leaves it."""
        with self.device.hosting(self.model, experts=True):
            record = partial(recorded, self.model, self.name, store, requests, tokens)
            return record(lookahead, self.sampling)


@dataclass(frozen=True)
class DrivenSubject:
    """A trace that drives generated experts.

    The first half of its requests are for checks and the others for calibrations, so that nothing
    is calibrated on what is checked; a trace of one request serves both.

    Attributes:
        model: what is computed.
        trace: as many layers and experts as the model has.
        device: that computes.

    Raises:
        InputError: trace and model are of different shapes.
    """

    model: GeneratedModel
    trace: Trace
    device: Device = CPU

    def __post_init__(self) -> None:
        check_fits(self.trace, self.model.shape)

    @property
    def dtype(self) -> str:
        """That the experts are stored in: bf16, fp16 or f32."""
        return DTYPE_NAMES[self.model.dtype]

    @cached_property
    def requests(self) -> list[Trace]:
        """Those of the trace, each by itself."""
        return split(self.trace)

    def check_room(self, slots: int, stores: int, budget: int, layers: int | None = None) -> None:
        """Refuse a run that may take more than so many bytes of memory.

        Args:
            slots: experts that all these layers together keep.
            stores: codecs and bounds.
            budget: bytes.
            layers: that run; None for all.

        Raises:
            InputError: it may.
        """
        shape = self.model.shape
        part = replace(shape, layers=shape.layers if layers is None else layers)
        check_memory(self.model, part, slots, most_at_once(self.trace), stores, budget)

    def check_measurable(self) -> None:
        """Refuse what a calibration has nothing to measure on.

        Raises:
            InputError: one layer, or a request with fewer than two decode steps.
        """
        if self.trace.layers < 2:
            raise InputError("the compute of a layer is measured from one to the next: give 2")
        decodes = [int((one.phase == DECODE).sum()) for one in self.requests]
        if min(decodes) < 2:
            raise InputError(
                f"request {decodes.index(min(decodes))} of the trace has {min(decodes)} decode "
                "steps; to measure on it takes requests of at least 2"
            )

    @property
    def facts(self) -> ModelFacts:
        """Name and sizes; the name says everything that the blobs depend on."""
        name = f"{self.trace.info.model}, {self.model}"
        return _facts(name, self.model.shape, self.trace.top_k)

    @property
    def lookahead(self) -> int:
        """What the trace has."""
        return 0 if self.trace.lookahead is None else int(self.trace.lookahead.shape[2])

    @property
    def host_computes(self) -> bool:
        """Always."""
        return True

    def matrices(self) -> Sequence[torch.Tensor]:
        """Gate, up and down of the first expert."""
        return self.model.matrices(0, 0)

    def store(
        self, codec: Codec, bound: float | Bounds, progress: Callable[[], None] = lambda: None
    ) -> ExpertStore:
        """The generated experts under a codec and bound."""
        return ExpertStore.holding(self.model, codec, bound, progress)

    @property
    def resident_layers(self) -> int:
        """Layers that a calibration runs: see `measured_layers`."""
        return measured_layers(self.model.shape)

    def resident(self, store: ExpertStore) -> ExpertStore:
        """So many of the first layers."""
        return store.first(self.resident_layers)

    def drawn(self, requests: int, seed: int) -> list[Trace]:
        """Of the second half of the trace."""
        later = self.requests[len(self.requests) // 2 :]
        return Random(f"driven/{seed}").choices(later, k=requests)

    def longest(self, tokens: int, seed: int) -> list[Trace]:
        """None: the dense part that stands for a real one attends to nothing."""
        return []

    def checked(self, requests: int, seed: int) -> list[Trace]:
        """The first ones of the first half; there is nothing to draw."""
        return self.requests[: max(1, len(self.requests) // 2)][:requests]

    def steps(self, requests: Sequence[Trace], tokens: int) -> int:
        """At most so many for each, fewer where a request is shorter."""
        return sum(1 for _ in steps_of(self._cut(requests, tokens, 1)))

    def run(
        self,
        store: ExpertStore,
        policy: Policy,
        requests: Sequence[Trace],
        tokens: int,
        link_bytes_per_s: float | None = None,
        progress: Callable[[], None] = lambda: None,
        profile: Trace | None = None,
        folder: Path | None = None,
    ) -> Run:
        """Drive the experts by the first layers of the requests, as many as the store has."""
        trace = self._cut(requests, tokens, store.shape.layers)
        run = partial(run_driven, self.model, store, policy, trace)
        return run(link_bytes_per_s, progress, profile, folder, self.device)

    def recorded(
        self, store: ExpertStore, requests: Sequence[Trace], tokens: int, lookahead: int = 0
    ) -> Recorded:
        """The trace itself: no error of a weight changes what it says."""
        return Recorded(self._cut(requests, tokens, store.shape.layers), [])

    def _cut(self, requests: Sequence[Trace], tokens: int, layers: int) -> Trace:
        return cut(joined(requests), layers, tokens=tokens)


def measured_layers(shape: ExpertShape) -> int:
    """As many layers as exceed the caches of the CPU in float32, but at least three, or all."""
    layer_bytes = shape.experts * shape.values * torch.float32.itemsize
    return min(shape.layers, max(FEWEST_LAYERS, beyond_cache(layer_bytes, shape.layers)))


def _facts(name: str, shape: ExpertShape, top_k: int) -> ModelFacts:
    return ModelFacts(
        name=name,
        layers=shape.layers,
        experts=shape.experts,
        top_k=top_k,
        hidden=shape.hidden,
        width=shape.width,
        dtype_bytes=shape.dtype_bytes,
    )
