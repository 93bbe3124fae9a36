"""Samplers of a calibration: what is measured through the real run, round by round.

A calibration takes several rounds over everything, because a shared machine drifts: what is
measured in one go is right for that minute only.
"""

import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from transformers import PreTrainedModel

from offsim.calibration.fit import figure
from offsim.calibration.measure import slowdown, timed
from offsim.calibration.schema import CodecFigures, ComputeFigures, HandoverFigures
from offsim.calibration.stamps import (
    Observed,
    asking_nothing,
    compute_figures,
    handover_figures,
    overshoots,
    undisturbed,
)
from offsim.codec import encode
from offsim.model.experts import ExpertWeights, expert_modules, matrices_of, mixed
from offsim.policy.policy import Policy
from offsim.record import RunRecord
from offsim.record.events import Stage
from offsim.runtime.pipeline import unpack
from offsim.runtime.run import Run, run_offloaded
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import Worker, single_compute_thread
from offsim.study.workload import prompts

MISS_SECONDS = (0.0003, 0.001, 0.003, 0.01)
"""How long a raw expert is on the link in the runs that measure hand-overs and cooling, s."""
HALVED_SECONDS = 0.001
"""The same in the run that measures how soon compute is warm again, s."""
DECODE_SECONDS = 0.002
"""The same in the runs that measure decoding. It is measured in runs because a worker that has just
woken up, and writes into a slot that compute read before, decodes more slowly than a tight loop."""
BESIDE_TOKENS = 8
"""Tokens of the expert that computes beside a decoder."""


class ComputeSampler:
    """Compute, hand-overs and cooling of a model.

    Args:
        model: whose experts are in the store.
        raw: the store without compression.
        tokens: written for each request.
    """

    def __init__(self, model: PreTrainedModel, raw: ExpertStore, tokens: int) -> None:
        self.model, self.raw, self.tokens = model, raw, tokens
        self._resident: Observed = (RunRecord("MEASURED"), [])
        self._halved: Observed = (RunRecord("MEASURED"), [])
        self._missing: list[Observed] = [(RunRecord("MEASURED"), []) for _ in MISS_SECONDS]

    def round(self, requests: int, seed: int) -> None:
        """Run some requests with all, half and none of the experts resident.

        Args:
            requests: how many; each is run twice, first to fill the slots.
            seed: of the prompts.
        """
        asked = prompts(requests, seed)
        every = self.raw.shape.experts
        run = self._run(every, asked * 2, None)
        _extend(self._resident, run, requests * self.tokens)
        for seconds, seen in zip(MISS_SECONDS, self._missing, strict=True):
            _extend(seen, self._run(0, asked[:1], seconds), 1)
        _extend(self._halved, self._run(every // 2, asked, HALVED_SECONDS), self.tokens)

    def figures(self) -> tuple[ComputeFigures, HandoverFigures]:
        """What all rounds gave."""
        times = self._resident[1]
        nothing = figure(list(asking_nothing(times))).value
        handover = handover_figures(self._missing, nothing)
        submit = handover.submit_s.value
        return compute_figures(times, self._missing, self._halved, submit), handover

    def _run(self, slots: int, asked: list[list[int]], seconds: float | None) -> Run:
        pace = None if seconds is None else self.raw.shape.bytes / seconds
        return run_offloaded(self.model, self.raw, Policy(slots=slots), asked, self.tokens, pace)


def _extend(seen: Observed, run: Run, skip: int) -> None:
    """Add the steps of a run but the first `skip`."""
    seen[0].steps.extend(run.record.steps[skip:])
    seen[1].extend(run.times[skip:])


def resident_layer_s(
    model: PreTrainedModel, store: ExpertStore, asked: Sequence[Sequence[int]]
) -> float:
    """Compute of one layer and token with every expert resident, s: a short measurement.

    Args:
        model: whose experts are in the store.
        store: under any codec.
        asked: prompts; the last is run twice, first to fill the slots.
    """
    policy = Policy(codec=store.codec.name, bound=store.bound, slots=store.shape.experts)
    tokens = 16
    run = run_offloaded(model, store, policy, [asked[-1]] * 2, tokens)
    layers = [layer for step in run.times[tokens + 1 :] for layer in pairwise(step.layers)]
    return figure([after.enter - before.enter for before, after in layers]).value


class CodecSampler:
    """Speed and interference of one codec and bound.

    Args:
        model: whose experts are in the store.
        store: under the codec and bound.
        tokens: written for the request of a round.
    """

    def __init__(self, model: PreTrainedModel, store: ExpertStore, tokens: int) -> None:
        self.model, self.store, self.tokens = model, store, tokens
        self.on_host = store.codec.placement == "host"
        shape = store.shape
        self._places = [(la, e) for e in range(shape.experts) for la in range(shape.layers)]
        self._weights = [
            matrix.to(torch.bfloat16) for matrix in matrices_of(expert_modules(model)[0], 0)
        ]
        self._slot = torch.empty(shape.values)
        self.overshoot: list[float] = []
        self._encode: list[float] = []
        self._decode: list[float] = []
        self._unpack: list[float] = []
        self._alone: tuple[list[float], list[float]] = ([], [])
        self._beside: tuple[list[float], list[float]] = ([], [])

    def round(self, experts: int, repeats: int, seed: int) -> None:
        """Encode one expert, run a request with half of the experts, and decode beside compute.

        Args:
            experts: decoded alone and beside compute.
            repeats: of the encoding.
            seed: of the prompt.
        """
        places = [self._places[n % len(self._places)] for n in range(experts)]
        self._places = self._places[experts:] + self._places[:experts]
        with single_compute_thread():
            self._encode += timed(self._encode_one, repeats)
            self._side_by_side(places)
        shape = self.store.shape
        codec, bound = self.store.codec.name, self.store.bound
        policy = Policy(codec=codec, bound=bound, slots=shape.experts // 2)
        pace = shape.bytes / DECODE_SECONDS
        asked = prompts(1, seed)
        run = run_offloaded(self.model, self.store, policy, asked, self.tokens, pace)
        stage: Stage = "host decode" if self.on_host else "device decode"
        self._decode += undisturbed(run.record, stage)
        self._unpack += undisturbed(run.record, "device decode")
        self.overshoot += overshoots(run.record, pace)

    def figures(self) -> CodecFigures:
        """What all rounds gave."""
        store, codec = self.store, self.store.codec
        blobs = [blob for row in store.blobs for expert in row for blob in expert.blobs]
        return CodecFigures(
            codec=codec.name,
            options=codec.options(),
            bound=store.bound,
            placement=codec.placement,
            blob_bytes=[[blob.nbytes for blob in row] for row in store.blobs],
            ratio=store.ratio,
            largest_error=store.largest_error,
            fallbacks=sum(blob.header.codec != codec.name for blob in blobs),
            encode_s=figure(self._encode),
            decode_s=figure(self._decode),
            unpack_s=figure(self._unpack) if self.on_host else None,
            compute_slowdown=slowdown(self._alone[0], self._beside[0]),
            decode_slowdown=slowdown(self._alone[1], self._beside[1]),
        )

    def _encode_one(self) -> None:
        for weights in self._weights:
            encode(weights, self.store.codec, self.store.bound)

    @torch.inference_mode()
    def _side_by_side(self, places: Sequence[tuple[int, int]]) -> None:
        """A worker decodes on its own core, first beside nothing, then beside an expert."""
        shape = self.store.shape
        expert = ExpertWeights.over(torch.randn(shape.values) * 0.02, shape)
        hidden = torch.randn(BESIDE_TOKENS, shape.hidden)
        ids = torch.zeros(BESIDE_TOKENS, 1, dtype=torch.int64)
        weights = torch.ones(BESIDE_TOKENS, 1)

        def compute() -> None:
            mixed(hidden, ids, weights, [(0, expert)])

        finished = threading.Event()

        def decode_all(samples: list[float], start: float) -> None:
            for layer, number in places:
                self._decode_here(layer, number)
                samples.append(time.perf_counter() - start)
                start = time.perf_counter()
            finished.set()

        worker = Worker("decoder", decode_all, lambda *_: finished.set())
        worker.put(self._alone[1])
        finished.wait()
        finished.clear()
        self._alone[0].extend(timed(compute, 100, warm_up=10))
        worker.put(self._beside[1])
        while not finished.is_set():
            self._beside[0].extend(timed(compute, 1, warm_up=0))
        worker.stop()

    def _decode_here(self, layer: int, expert: int) -> None:
        blob = self.store.blobs[layer][expert]
        if self.on_host:
            for number in range(len(blob.blobs)):
                blob.decoded(number)
        else:
            unpack(blob, blob.payloads(), self._slot, decoded=False)
