"""Samplers of a calibration: what is measured through the real run, round by round.

A calibration takes several rounds over everything, because a shared machine drifts: what is
measured in one go is right for that minute only.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from statistics import median
from typing import Generic

import torch

from offsim.calibration.fit import figure, undisturbed_rounds
from offsim.calibration.measure import slowdown, timed
from offsim.calibration.schema import CodecFigures, ComputeFigures, Figure, HandoverFigures
from offsim.calibration.stamps import (
    Observed,
    asking_nothing,
    compute_figures,
    foresight_figures,
    handover_figures,
    overshoots,
    undisturbed,
)
from offsim.codec import encode
from offsim.codec.expert import ExpertBlob
from offsim.model.experts import ExpertWeights, mixed
from offsim.policy.prefetchers.registry import PREFETCHERS
from offsim.record import RunRecord
from offsim.record.events import Stage
from offsim.runtime.host_decode import HostDecode
from offsim.runtime.run import Run
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import Worker, single_compute_thread
from offsim.study.rounds import InnerRuns, Rounds
from offsim.study.subject import Request, Subject
from offsim.trace import DECODE, Trace

MISS_SECONDS = (0.0003, 0.001, 0.003, 0.01)
"""How long a raw expert is on the link in the runs that measure hand-overs and cooling, s."""
HALVED_SECONDS = 0.001
"""The same in the run that measures how soon compute is warm again, s."""
DECODE_SECONDS = 0.002
"""The same in the runs that measure decoding. It is measured in runs because a worker that has just
woken up, and writes into a slot that compute read before, decodes more slowly than a tight loop."""
RESIDENT_TOKENS = 16
"""Of the request by which the compute of a layer is measured in short."""
FORESEEN = (("gate", 1), ("gate", 2), ("last-token", 1), ("transition", 1), ("popularity", 1))
"""Prefetchers whose own time is measured, and how many layers they look ahead."""
BESIDE_TOKENS = 8
"""Tokens of the expert that computes beside a decoder."""


class ComputeSampler(Generic[Request]):
    """Compute, hand-overs and cooling of a model.

    Args:
        subject: whose experts are in the store.
        raw: the store without compression.
        tokens: of each request.

    Attributes:
        inner: the policies that each round runs, but for those that only prefetch.
    """

    def __init__(self, subject: Subject[Request], raw: ExpertStore, tokens: int) -> None:
        self.inner = InnerRuns()
        self.subject, self.raw, self.tokens = subject, subject.resident(raw), tokens
        self._resident: Rounds[Observed] = Rounds()
        self._halved: Rounds[Observed] = Rounds()
        self._missing: list[Rounds[Observed]] = [Rounds() for _ in MISS_SECONDS]
        self._foreseen: dict[tuple[str, int], Rounds[Observed]] = {
            (name, distance): Rounds()
            for name, distance in FORESEEN
            if not PREFETCHERS[name].gated or distance <= subject.lookahead
        }
        self._long: Rounds[Observed] = Rounds()
        self._profile: Trace | None = None

    def round(self, requests: int, seed: int) -> None:
        """Run some requests with all, half and none of the experts resident, and prefetching.

        Args:
            requests: how many; each is run twice, first to fill the slots.
            seed: of the requests.
        """
        asked = self.subject.drawn(requests, seed)
        every = self.raw.shape.experts
        self._resident.append(_after(self._noted(every, asked * 2, None), requests))
        for seconds, seen in zip(MISS_SECONDS, self._missing, strict=True):
            seen.append(_without(self._noted(0, asked[:1], seconds), 1))
        halved = self._noted(every // 2, [asked[-1], *asked], HALVED_SECONDS)
        self._halved.append(_after(halved, 1))
        if longest := self.subject.longest(self.tokens, seed):
            self._long.append(_after(self._run(every, longest * 2, None), 1))
        if self._profile is None:
            self._profile = self.subject.recorded(self.raw, asked[:1], self.tokens).trace
        for (name, distance), seen in self._foreseen.items():
            policy = self.raw.policy(slots=every // 2, prefetch=name, distance=distance)
            run = self.subject.run(self.raw, policy, asked[:1], self.tokens, profile=self._profile)
            seen.append(_without(run, 0))  # the prompt too: it asks gates for all its tokens

    def figures(self) -> tuple[ComputeFigures, HandoverFigures]:
        """What the undisturbed rounds gave."""
        times = _pooled(self._resident)[1]
        missing = [_pooled(seen) for seen in self._missing]
        handover = handover_figures(missing, figure(list(asking_nothing(times))).value)
        submit = handover.submit_s.value
        long = _pooled(self._long)[1] if self._long else []
        compute = compute_figures(times, missing, _pooled(self._halved), submit, long)
        foresight = [
            foresight_figures(name, distance, _pooled(seen)[1], times, submit)
            for (name, distance), seen in self._foreseen.items()
        ]
        return compute.model_copy(update={"foresight": foresight}), handover

    def _noted(self, slots: int, asked: list[Request], seconds: float | None) -> Run:
        """A run that the other rounds are to predict."""
        run = self._run(slots, asked, seconds)
        self.inner.note(self.raw.policy(slots=slots), self._pace(seconds), run)
        return run

    def _run(self, slots: int, asked: list[Request], seconds: float | None) -> Run:
        policy, pace = self.raw.policy(slots=slots), self._pace(seconds)
        return self.subject.run(self.raw, policy, asked, self.tokens, pace)

    def _pace(self, seconds: float | None) -> float | None:
        return None if seconds is None else self.raw.shape.bytes / seconds


def _without(run: Run, skip: int) -> Observed:
    """The steps of a run but the first `skip`."""
    return RunRecord("MEASURED", run.record.steps[skip:]), run.times[skip:]


def _after(run: Run, requests: int) -> Observed:
    """The steps of a run after those of its first requests."""
    return _without(run, sum(step.request < requests for step in run.record.steps))


def _pooled(rounds: Sequence[Observed]) -> Observed:
    """All steps of the undisturbed rounds."""
    kept = undisturbed_rounds(rounds, _dense_s)
    steps = [step for record, _ in kept for step in record.steps]
    return RunRecord("MEASURED", steps), [times for _, seen in kept for times in seen]


def _dense_s(seen: Observed) -> float:
    """Median of the dense part of a layer over the decode steps of a round, s."""
    return median(
        after.enter - before.leave
        for step in seen[1]
        if step.tokens == 1
        for before, after in pairwise(step.layers)
    )


def resident_layer_s(
    subject: Subject[Request], store: ExpertStore, asked: Sequence[Request]
) -> float:
    """Compute of one layer and token with every expert resident, s: a short measurement.

    Args:
        subject: whose experts are in the store.
        store: under any codec.
        asked: requests; the last is run twice, first to fill the slots.
    """
    part = subject.resident(store)
    policy = part.policy(slots=part.shape.experts)
    run = subject.run(part, policy, [asked[-1]] * 2, RESIDENT_TOKENS)
    layers = [
        layer
        for step, times in zip(run.record.steps, run.times, strict=True)
        if step.request and step.phase == DECODE
        for layer in pairwise(times.layers)
    ]
    return figure([after.enter - before.enter for before, after in layers]).value


class CodecSampler(Generic[Request]):
    """Speed and interference of one codec and bound.

    Args:
        subject: whose experts are in the store.
        store: under the codec and bound.
        tokens: of the request of a round.

    Attributes:
        inner: the policy that each round runs.
        overshoot: of each round, of each of its transfers, s.
    """

    def __init__(self, subject: Subject[Request], store: ExpertStore, tokens: int) -> None:
        self.subject, self.store, self.tokens = subject, store, tokens
        self.on_host = store.codec.placement == "host"
        shape = store.shape
        self._pace = shape.bytes / DECODE_SECONDS
        self._places = [(la, e) for e in range(shape.experts) for la in range(shape.layers)]
        self._weights = subject.matrices()
        self._slot = subject.device.slots(1, shape.values)[0]
        self.inner = InnerRuns()
        self.overshoot: Rounds[list[float]] = Rounds()
        self._encode: Rounds[list[float]] = Rounds()
        self._decode: Rounds[list[float]] = Rounds()
        self._unpack: Rounds[list[float]] = Rounds()
        self._slowdowns: Rounds[tuple[float, float]] = Rounds()

    def round(self, experts: int, repeats: int, seed: int) -> None:
        """Encode one expert, run a request with half of the experts, and decode beside compute.

        Args:
            experts: decoded alone and beside compute.
            repeats: of the encoding.
            seed: of the request.
        """
        places = [self._places[n % len(self._places)] for n in range(experts)]
        self._places = self._places[experts:] + self._places[:experts]
        with single_compute_thread():
            self._encode.append(timed(self._encode_one, repeats))
            self._slowdowns.append(self._side_by_side(places))
        part = self.subject.resident(self.store)
        policy = part.policy(slots=part.shape.experts // 2)
        asked = self.subject.drawn(1, seed)
        run = self.subject.run(part, policy, asked, self.tokens, self._pace)
        stage: Stage = "host decode" if self.on_host else "device decode"
        self._decode.append(undisturbed(run.record, stage))
        self._unpack.append(undisturbed(run.record, "device decode"))
        self.overshoot.append(list(overshoots(run.record, self._pace)))
        self.inner.note(policy, self._pace, run)

    def figures(self) -> CodecFigures:
        """What the undisturbed rounds gave."""
        store, codec = self.store, self.store.codec
        blobs = [blob for row in store.blobs for expert in row for blob in expert.blobs]
        return CodecFigures(
            label="MEASURED",
            codec=str(codec),
            options=codec.options(),
            bound=store.bound,
            placement=codec.placement,
            blob_bytes=store.blob_bytes,
            matrix_bytes=store.matrix_bytes,
            ratio=store.ratio,
            largest_error=store.largest_error,
            fallbacks=sum(blob.header.codec != codec.name for blob in blobs),
            encode_s=_figure_of(self._encode),
            decode_s=_figure_of(self._decode),
            unpack_s=_figure_of(self._unpack) if self.on_host else None,
            compute_slowdown=median(compute for compute, _ in self._slowdowns),
            decode_slowdown=median(decode for _, decode in self._slowdowns),
        )

    def _encode_one(self) -> None:
        for weights in self._weights:
            encode(weights, self.store.codec, self.store.bound)

    @torch.inference_mode()
    def _side_by_side(self, places: Sequence[tuple[int, int]]) -> tuple[float, float]:
        """By how much compute and decoding slow down beside each other, each on its own core."""
        shape, device = self.store.shape, self.subject.device
        values = (torch.randn(shape.values) * 0.02).to(device.place)
        expert = ExpertWeights.over(values, shape)
        hidden = torch.randn(BESIDE_TOKENS, shape.hidden).to(device.place)
        ids = torch.zeros(BESIDE_TOKENS, 1, dtype=torch.int64, device=device.place)
        weights = torch.ones(BESIDE_TOKENS, 1, device=device.place)

        def compute() -> None:
            mixed(hidden, ids, weights, [(0, expert)])
            device.now()  # waits for it

        finished = threading.Event()
        failures: list[Exception] = []

        def decode_all(samples: list[float], start: float) -> None:
            for layer, number in places:
                decode(self.store.blobs[layer][number])
                samples.append(time.perf_counter() - start)
                start = time.perf_counter()
            finished.set()

        def failed(_: object, error: Exception) -> None:
            failures.append(error)
            finished.set()

        decoded_alone: list[float] = []
        decoded_beside: list[float] = []
        computed_beside: list[float] = []
        with device.computing(), self._decoder(places) as decode:
            worker = Worker("decoder", decode_all, failed)
            worker.put(decoded_alone)
            finished.wait()
            finished.clear()
            computed_alone = timed(compute, 100, warm_up=10)
            worker.put(decoded_beside)
            while not finished.is_set():
                computed_beside += timed(compute, 1, warm_up=0)
            worker.stop()
        if failures:
            raise failures[0]
        return (
            slowdown(computed_alone, computed_beside or computed_alone),
            slowdown(decoded_alone, decoded_beside),
        )

    @contextmanager
    def _decoder(
        self, places: Sequence[tuple[int, int]]
    ) -> Iterator[Callable[[ExpertBlob], object]]:
        """What decodes the experts at some places as a run does."""
        if self.on_host:
            with closing(HostDecode(1, self.store)) as host:
                yield host.decode
            return
        device = self.subject.device
        blobs = [self.store.blobs[layer][expert] for layer, expert in places]
        link = device.link(math.inf)  # whose pace keeps nobody waiting
        there = {id(blob): link.carry(blob.payloads())[0] for blob in blobs}
        yield lambda blob: device.unpack(blob, there[id(blob)], self._slot, decoded=False)


def _figure_of(rounds: Sequence[list[float]]) -> Figure:
    """The figure of all samples of the undisturbed rounds."""
    return figure([seconds for kept in undisturbed_rounds(rounds, median) for seconds in kept])
