"""Samplers of a calibration: what is measured through the real run, round by round.

A calibration takes several rounds over everything, because a shared machine drifts: what is
measured in one go is right for that minute only.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Generic

from offsim.calibration.fit import figure, summed, undisturbed_rounds
from offsim.calibration.measure import timed
from offsim.calibration.overlap import Beside, alone, computed, decode_slowdown, decoded, slowdown
from offsim.calibration.schema import (
    CodecFigures,
    ComputeFigures,
    Figure,
    HandoverFigures,
)
from offsim.calibration.stamps import (
    Observed,
    asking_nothing,
    compute_figures,
    handover_figures,
    overshoots,
    undisturbed,
)
from offsim.codec import encode
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import NONE
from offsim.policy.transfer import Transfer
from offsim.record import RunRecord
from offsim.record.events import Stage
from offsim.record.times import StepTimes
from offsim.runtime.run import Run
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.study.adding_up import Ran, Whole
from offsim.study.rounds import InnerRuns, Rounds
from offsim.study.subject import Request, Subject
from offsim.trace import DECODE, Trace

MISS_SECONDS = (0.0003, 0.001, 0.003, 0.01)
"""How long a raw expert is on the link in the runs that measure hand-overs and cooling, s."""
HALVED_SECONDS = 0.001
"""The same in the run that measures how soon compute is warm again, s."""
DECODE_SECONDS = 0.002
"""The same in the runs that measure how decoding takes longer after an idle spell."""
QUEUE_SECONDS = 0.0003
"""The same in the runs in which loads queue for a decoder on the host, which is before the link."""
QUEUE_SHARE = 0.75
"""Of the time of its decoding that a blob is on the link in the runs in which loads queue for a
decoder on the device: the link is at work all the time, as in a prompt, and the queue grows."""
QUEUE_TOKENS = 4
"""Of a request of these."""
HALVED, QUEUED, QUEUED_CHUNKS, AHEAD, AHEAD_CHUNKS = (
    "halved",
    "queued",
    "queued in chunks",
    "ahead",
    "ahead in chunks",
)
"""The runs of a round: with half of the experts; with none, so that loads queue; and with some, so
that they are fetched ahead."""
FETCHING = {"prefetch": "popularity", "distance": 2}
"""The prefetcher of the runs in which dense parts and decoding are side by side: one that fetches
much, and whose own time hardly depends on anything."""
CHUNKS = 4
"""Of a load, in the runs in which loads move in chunks."""
AHEAD_SHARE = 4
"""A layer's experts over the slots of these runs."""
RESIDENT_TOKENS = 16
"""Of the request by which the compute of a layer is measured in short."""


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
        self._long: Rounds[Observed] = Rounds()

    def round(self, requests: int, seed: int) -> None:
        """Run some requests with all, half and none of the experts resident.

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

    def figures(self) -> tuple[ComputeFigures, HandoverFigures]:
        """What the undisturbed rounds gave."""
        times = self.resident_times
        missing = [_pooled(seen) for seen in self._missing]
        handover = handover_figures(missing, figure(list(asking_nothing(times))).value)
        submit = handover.submit_s.value
        long = _pooled(self._long)[1] if self._long else []
        return compute_figures(times, missing, _pooled(self._halved), submit, long), handover

    @property
    def resident_times(self) -> list[StepTimes]:
        """Stamps of the steps with every expert resident, of the undisturbed rounds."""
        return _pooled(self._resident)[1]

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
        self._stage: Stage = "host decode" if self.on_host else "device decode"
        self._pace = store.shape.bytes / DECODE_SECONDS
        self._weights = subject.matrices()
        self.inner = InnerRuns()
        self.overshoot: Rounds[list[float]] = Rounds()
        self._encode: Rounds[list[float]] = Rounds()
        self._alone: Rounds[list[float]] = Rounds()
        self._unpack: Rounds[list[float]] = Rounds()
        self._runs: Rounds[dict[str, Run]] = Rounds()
        self._queue_pace: float | None = None  # the same in all rounds, as is the next one
        self._profile: Trace | None = None

    def round(self, repeats: int, seed: int) -> None:
        """Encode one expert, and run a request with half of the experts, with none, and ahead.

        Args:
            repeats: of the encoding.
            seed: of the request.
        """
        with single_compute_thread():
            self._encode.append(timed(self._encode_one, repeats))
        part = self.subject.resident(self.store)
        policy = part.policy(slots=part.shape.experts // 2)
        asked = self.subject.drawn(1, seed)
        run = self.subject.run(part, policy, asked, self.tokens, self._pace)
        self._alone.append(undisturbed(run.record, self._stage))
        self._unpack.append(undisturbed(run.record, "device decode"))
        self.overshoot.append(list(overshoots(run.record, self._pace)))
        self.inner.note(policy, self._pace, run)
        if self._queue_pace is None:
            self._queue_pace = self._pace_of_queues(median(self._alone[0]))
        if self._profile is None:
            self._profile = self.subject.recorded(part, asked, self.tokens).trace
        runs = {HALVED: run}
        for name, policy in self._whole.items():
            tokens = self.tokens if policy.prefetch != NONE else min(self.tokens, QUEUE_TOKENS)
            runs[name] = self.subject.run(
                part, policy, asked, tokens, self._queue_pace, profile=self._profile
            )
        self.inner.note(self._whole[QUEUED], self._queue_pace, runs[QUEUED])
        self._runs.append(runs)

    def figures(self, compute: ComputeFigures) -> CodecFigures:
        """What the undisturbed rounds gave.

        Args:
            compute: what everything takes without a decoder beside it.
        """
        store, codec = self.store, self.store.codec
        blobs = [blob for row in store.blobs for one in row for blob in one.blobs]
        woken = summed([s for kept in undisturbed_rounds(self._alone, median) for s in kept])
        seconds, slowed, dense, experts = self._beside(compute)
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
            decode_s=summed(seconds) if seconds else woken,
            alone_s=woken,
            unpack_s=_figure_of(self._unpack) if self.on_host else None,
            compute_slowdown=dense,
            expert_slowdown=experts,
            decode_slowdown=slowed,
        )

    @property
    def whole(self) -> Whole:
        """The runs by whose whole steps figures are corrected."""
        assert self._queue_pace is not None, "a round was sampled"
        ran = {
            name: Ran(policy, self._queue_pace, [runs[name] for runs in self._runs])
            for name, policy in self._whole.items()
        }
        return Whole(ran[QUEUED], ran.get(QUEUED_CHUNKS), ran[AHEAD], ran[AHEAD_CHUNKS])

    @property
    def _whole(self) -> dict[str, Policy]:
        """The policies of these runs, by name."""
        part = self.subject.resident(self.store)
        places = self.store.shape.layers * self.store.shape.experts
        chunks = Transfer(chunk_bytes=-(-self.store.nbytes // (CHUNKS * places)))
        slots = max(1, part.shape.experts // AHEAD_SHARE)
        found = {
            QUEUED: part.policy(slots=0),
            QUEUED_CHUNKS: part.policy(slots=0, transfer=chunks),
            AHEAD: part.policy(slots=slots, **FETCHING),
            AHEAD_CHUNKS: part.policy(slots=slots, transfer=chunks, **FETCHING),
        }
        if self.on_host:
            del found[QUEUED_CHUNKS]
        return found

    def _pace_of_queues(self, decode_s: float) -> float:
        """Of the link in the runs in which loads queue, bytes/s."""
        if self.on_host:
            return self.store.shape.bytes / QUEUE_SECONDS
        places = self.store.shape.layers * self.store.shape.experts
        return self.store.nbytes / places / (QUEUE_SHARE * decode_s)

    def _beside(self, compute: ComputeFigures) -> tuple[list[float], float, float, float]:
        """Seconds of experts decoded right after one another, and slowdowns.

        Returns:
            The seconds, as if compute stood still; and by how much decoding, the dense parts of
            compute, and experts are slowed.
        """
        stage = self._stage
        turns = [list(decoded(runs[QUEUED].record, stage, in_turn=True)) for runs in self._runs]
        kept = undisturbed_rounds(list(zip(turns, self._runs, strict=True)), _typical_s)
        dense, experts, woken = [], [], []
        for _, runs in kept:
            for name in (HALVED, QUEUED, AHEAD):
                parts = computed(runs[name].record, runs[name].times, stage, compute)
                experts += parts[1]
                if name == AHEAD:  # the others decode nothing beside them
                    dense += parts[0]
            woken += list(decoded(runs[AHEAD].record, stage, in_turn=False))
        slowed = decode_slowdown(woken)
        seconds = alone([one for turn, _ in kept for one in turn], slowed)
        return seconds, slowed, slowdown(dense), slowdown(experts)

    def _encode_one(self) -> None:
        for weights in self._weights:
            encode(weights, self.store.codec, self.store.bound)


def _typical_s(round_: tuple[Sequence[Beside], object]) -> float:
    """The median of what was decoded in a round, s; 0 where nothing was."""
    return median(one.seconds for one in round_[0]) if round_[0] else 0.0


def _figure_of(rounds: Sequence[Sequence[float]]) -> Figure:
    """The figure of all samples of the undisturbed rounds."""
    return figure([seconds for kept in undisturbed_rounds(rounds, median) for seconds in kept])
