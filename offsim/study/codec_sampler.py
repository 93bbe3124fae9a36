"""The sampler of a codec: measured through the real run, round by round."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Generic

from offsim.calibration.fit import OUTLIER, figure, summed, undisturbed_rounds
from offsim.calibration.measure import timed
from offsim.calibration.overlap import (
    Beside,
    alone,
    computed,
    decode_slowdown,
    decoded,
    interference,
    slowdown,
)
from offsim.calibration.schema import CodecFigures, ComputeFigures, Figure
from offsim.calibration.stamps import overshoots, undisturbed
from offsim.codec import encode
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import NONE
from offsim.policy.transfer import Transfer
from offsim.record.events import Stage
from offsim.runtime.run import Run
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.study.adding_up import Ran
from offsim.study.rounds import InnerRuns, Rounds
from offsim.study.subject import Request, Subject
from offsim.trace import Trace

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
CHUNK_SECONDS = 200e-6
"""How long each of them is on the link, at least, in the runs that fetch them ahead: a shorter one
is over before the thread that sleeps for it can wake."""
AHEAD_SHARE = 4
"""A layer's experts over the slots of these runs."""


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
                part, policy, asked, tokens, self._pace_of(policy), profile=self._profile
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
        seconds, slowed, (dense, arrival), experts = self._beside(compute)
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
            chunk_s=0.0 if self.on_host else self._chunk_s(slowed),
            unpack_s=_figure_of(self._unpack) if self.on_host else None,
            compute_slowdown=dense,
            arrival_s=arrival,
            expert_slowdown=experts,
            decode_slowdown=slowed,
        )

    @property
    def whole(self) -> tuple[Ran, Ran]:
        """The runs by whose whole steps figures are corrected: queued, and ahead."""
        queued, ahead = (
            Ran(policy, self._pace_of(policy), [runs[name] for runs in self._runs])
            for name, policy in self._whole.items()
            if name in (QUEUED, AHEAD)
        )
        return queued, ahead

    @property
    def _whole(self) -> dict[str, Policy]:
        """The policies of these runs, by name."""
        part = self.subject.resident(self.store)
        chunks = Transfer(chunk_bytes=-(-self._link_bytes // CHUNKS))
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
            return self._link_bytes / QUEUE_SECONDS
        return self._link_bytes / (QUEUE_SHARE * decode_s)

    def _pace_of(self, policy: Policy) -> float:
        """Of the link in one of the runs that count whole, bytes/s."""
        assert self._queue_pace is not None, "a round was sampled"
        chunk = policy.transfer.chunk_bytes
        if chunk is None or policy.prefetch == NONE:
            return self._queue_pace
        return min(self._queue_pace, chunk / CHUNK_SECONDS)

    @property
    def _link_bytes(self) -> int:
        """That cross the link for an expert, in the mean."""
        shape = self.store.shape
        return shape.bytes if self.on_host else self.store.nbytes // (shape.layers * shape.experts)

    def _beside(
        self, compute: ComputeFigures
    ) -> tuple[list[float], float, tuple[float, float], float]:
        """Seconds of experts decoded right after one another, and slowdowns.

        Returns:
            The seconds, as if compute stood still; by how much decoding is slowed; the dense parts
            of compute, and what a chunk that arrives costs these, s; and experts.
        """
        stage = self._stage
        turns = [list(decoded(runs[QUEUED].record, stage, in_turn=True)) for runs in self._runs]
        kept = undisturbed_rounds(list(zip(turns, self._runs, strict=True)), _typical_s)
        woken = [
            one for _, runs in kept for one in decoded(runs[AHEAD].record, stage, in_turn=False)
        ]
        slowed = decode_slowdown(woken)
        seconds = alone([one for turn, _ in kept for one in turn], slowed)
        parts = [self._parts(runs, compute) for _, runs in kept]
        dense = [one for beside, _ in parts for one in beside]
        # A round in which something else ran tilts the line through all samples.
        slowdowns = [slowdown(beside) for _, beside in parts]
        most = OUTLIER * median(slowdowns)
        experts = [
            one
            for by, (_, beside) in zip(slowdowns, parts, strict=True)
            if by <= most
            for one in beside
        ]
        return seconds, slowed, interference(dense), slowdown(experts)

    def _parts(
        self, runs: Mapping[str, Run], compute: ComputeFigures
    ) -> tuple[list[Beside], list[Beside]]:
        """The dense parts of compute beside which something comes in a round, and all experts."""
        dense, experts = [], []
        for name in (HALVED, QUEUED, AHEAD, AHEAD_CHUNKS):
            run, chunks = runs[name], CHUNKS if name == AHEAD_CHUNKS else 1
            found = computed(run.record, run.times, self._stage, compute, chunks)
            experts += found[1]
            if name in (AHEAD, AHEAD_CHUNKS):
                dense += found[0]
        return dense, experts

    def _chunk_s(self, slowed: float) -> float:
        """What a further chunk costs the decoder, s: chunks held against whole loads."""
        whole, chunked = (self._alone_in(name, slowed) for name in (QUEUED, QUEUED_CHUNKS))
        return max(0.0, (chunked - whole) / (CHUNKS - 1))

    def _alone_in(self, name: str, slowed: float) -> float:
        """What decoding takes in one of the runs, as if compute stood still, s."""
        rounds = []
        for runs in self._runs:
            turns = [
                decoded(runs[name].record, self._stage, in_turn=turn) for turn in (True, False)
            ]
            rounds.append(alone([one for turn in turns for one in turn], slowed))
        return summed([s for kept in undisturbed_rounds(rounds, median) for s in kept]).value

    def _encode_one(self) -> None:
        for weights in self._weights:
            encode(weights, self.store.codec, self.store.bound)


def _typical_s(round_: tuple[Sequence[Beside], object]) -> float:
    """The median of what was decoded in a round, s; 0 where nothing was."""
    return median(one.seconds for one in round_[0]) if round_[0] else 0.0


def _figure_of(rounds: Sequence[Sequence[float]]) -> Figure:
    """The figure of all samples of the undisturbed rounds."""
    return figure([seconds for kept in undisturbed_rounds(rounds, median) for seconds in kept])
