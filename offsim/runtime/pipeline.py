"""How an expert gets into a slot: host decode, link, device decode, each by threads of its own."""

import time
from collections.abc import Sequence
from itertools import count
from queue import SimpleQueue

import numpy as np
import torch

from offsim.codec import Blob, Codec, decode
from offsim.codec.expert import ExpertBlob
from offsim.errors import InputError, RunError
from offsim.policy.transfer import Transfer
from offsim.record import Load, Span
from offsim.record.events import Stage
from offsim.runtime.link import Bytes, Link
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import Jobs, Worker, busy
from offsim.runtime.waiting import Job, Waiting

PATIENCE_S = 30.0
"""A load that takes longer than this has been lost."""
ONE_AT_A_TIME = ("sz3",)
"""Host codecs that hold the interpreter lock while they decode."""
POLL_ROUNDS = 10_000
"""About 20 us between two looks at the queue."""


def check_transfer(transfer: Transfer, codec: Codec) -> None:
    """Refuse what only a simulation can do.

    Raises:
        InputError: a blob would have to be decoded before all of it is there, or the codec cannot
            decode several at once.
    """
    if transfer.pipelined:
        raise InputError(
            "a real run decodes a blob once all of it is there: pipelined transfers can only be "
            "simulated"
        )
    if transfer.decoders > 1 and codec.name in ONE_AT_A_TIME:
        raise InputError(
            f"{codec.name} lets no two threads decode at once: more than one host decoder can only "
            "be simulated"
        )


class Pipeline:
    """Moves experts from a store over a link into slots.

    Only the device decoder writes into slots, and it is one thread that does one load after the
    other. So where a load is given up while it is being written, whoever got its slot is written
    after it, and is ready later.

    Args:
        store: the experts in host memory.
        link: carries their bytes.
        transfer: in which parts, and by how many threads.
        ahead: whether anything may be fetched ahead.

    Raises:
        InputError: a real run cannot move loads in this way.
    """

    def __init__(
        self, store: ExpertStore, link: Link, transfer: Transfer | None = None, *, ahead: bool
    ) -> None:
        self.store, self.link = store, link
        self.transfer = transfer or Transfer()
        check_transfer(self.transfer, store.codec)
        self.on_host = store.codec.placement == "host"
        self.ready: SimpleQueue[Job] = SimpleQueue()
        shape = store.shape
        self._nbytes = [
            [store.link_bytes(layer, expert) for expert in range(shape.experts)]
            for layer in range(shape.layers)
        ]
        self._number = count()
        may_overtake = ahead or self.transfer != Transfer()
        self._stages: list[Jobs[Job]] = [
            Waiting() if may_overtake else SimpleQueue() for _ in range(3)
        ]
        self._first, self._middle, self._last = self._stages
        busy(1)  # the first call of a process loads it, which takes 0.2 s
        channels, decoders = self.transfer.channels, self.transfer.decoders
        self._workers = [
            [Worker("device decoder", self._device_decode, self._fail, self._last)],
            [Worker("link", self._carry, self._fail, self._middle) for _ in range(channels)],
            [
                Worker("host decoder", self._host_decode, self._fail, self._first)
                for _ in range(decoders if self.on_host else 0)
            ],
        ]

    def ask(self, layer: int, expert: int, slot: torch.Tensor, *, ahead: bool = False) -> Job:
        """Start to load an expert into a slot; returns at once.

        Args:
            layer: MoE layer.
            expert: id in that layer.
            slot: [values] float32.
            ahead: whether nobody waits for it yet.
        """
        nbytes = self._nbytes[layer][expert]
        load = Load(layer, expert, nbytes, time.perf_counter(), [], ahead, not ahead)
        job = Job(next(self._number), load, slot, self.store.blobs[layer][expert], not ahead)
        (self._first if self.on_host else self._middle).put(job)
        return job

    def note_arrivals(self) -> None:
        """Note which of the loads that were asked for are there by now (`Job.there`).

        Raises:
            RunError: a stage failed.
        """
        while not self.ready.empty():
            self._take()

    def arrived(self) -> Job | None:
        """The next urgent load that is there, in the order in which they became ready, or None.

        Raises:
            RunError: a stage failed.
        """
        while not self.ready.empty():
            job = self._take()
            if job.urgent:
                return job
        return None

    def wait(self) -> Job:
        """The next urgent load that is there, once there is one.

        It is polled for by a busy core, as a device that computes does not fall asleep: a core
        that slept would go on with cold caches and a low clock.

        Raises:
            RunError: a stage failed, or nothing came within PATIENCE_S.
        """
        patience = time.perf_counter() + PATIENCE_S
        while (job := self.arrived()) is None:
            busy(POLL_ROUNDS)
            if time.perf_counter() > patience:
                raise RunError(f"no expert arrived within {PATIENCE_S:g} s")
        return job

    def close(self) -> None:
        """End the threads; what is being served is served to the end of its chunk."""
        for waiting, workers in zip(self._stages[::-1], self._workers, strict=True):
            if isinstance(waiting, Waiting):
                waiting.close()
            for _ in workers:
                waiting.put(None)
        for workers in self._workers:
            for worker in workers:
                worker.join()

    def _take(self) -> Job:
        """The next load that is done, urgent or not, wanted or not."""
        job = self.ready.get()
        if job.error is not None and not job.gone:
            place = f"expert {job.load.expert} of layer {job.load.layer}"
            raise RunError(f"loading {place} failed: {job.error}") from job.error
        job.there = True
        return job

    def _fail(self, job: Job, error: Exception) -> None:
        job.error = error
        self.ready.put(job)

    def _host_decode(self, job: Job, start: float) -> None:
        matrices = [job.blob.decoded(number).view(-1) for number in range(len(job.blob.blobs))]
        job.parts = [weights.view(torch.uint8).numpy() for weights in matrices]
        _served(job, "host decode", start)
        self._middle.put(job)

    def _carry(self, job: Job, start: float) -> None:
        parts = job.parts or job.blob.payloads()
        if self.transfer.chunk_bytes is None:
            job.carried, last = self.link.copy(parts), True
        else:
            last = self._carry_chunk(job, parts, self.transfer.chunk_bytes)
        _served(job, "link", start)
        (self._last if last else self._middle).put(job)

    def _carry_chunk(self, job: Job, parts: Sequence[Bytes], most: int) -> bool:
        """Carry the next of equal chunks of at most so many bytes; whether it was the last."""
        nbytes = job.load.link_bytes
        chunks = max(1, -(-nbytes // most))
        if not job.chunks:
            job.parts, job.carried = parts, [np.empty_like(part) for part in parts]
        begin, end = (done * nbytes // chunks for done in (job.chunks, job.chunks + 1))
        self.link.copy_range(parts, job.carried, begin, end)
        job.chunks += 1
        return job.chunks == chunks

    def _device_decode(self, job: Job, start: float) -> None:
        unpack(job.blob, job.carried, job.slot, decoded=self.on_host)
        job.parts = job.carried = ()
        _served(job, "device decode", start)
        self.ready.put(job)


def _served(job: Job, stage: Stage, start: float) -> None:
    """Note that a job, or one more chunk of it, has been served from `start`, s, until now."""
    spans = job.load.spans
    now = time.perf_counter()
    if spans and spans[-1].stage == stage:
        spans[-1] = Span(stage, spans[-1].start, now)
    else:
        spans.append(Span(stage, start, now))


def unpack(blob: ExpertBlob, parts: Sequence[Bytes], slot: torch.Tensor, *, decoded: bool) -> None:
    """Fill a slot [values] float32 from what crossed the link.

    Args:
        blob: of the expert, for its headers.
        parts: payloads, or, where the host decoded, the weights in their stored dtype, as bytes.
        slot: overwritten: gate, up, down.
        decoded: which of the two `parts` are.
    """
    at = 0
    for matrix, part in zip(blob.blobs, parts, strict=True):
        if decoded:
            weights = torch.from_numpy(part).view(matrix.torch_dtype)
        else:
            weights = decode(Blob(matrix.header, part.data)).view(-1)
        slot[at : at + matrix.count].copy_(weights)
        at += matrix.count
