"""How an expert gets into a slot: host decode, link, device decode, each by a thread of its own."""

import time
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch

from offsim.codec import Blob, decode
from offsim.codec.expert import ExpertBlob
from offsim.errors import RunError
from offsim.record import Load, Span
from offsim.record.events import Stage
from offsim.runtime.link import Bytes, Link
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import Worker, busy

PATIENCE_S = 30.0
"""A load that takes longer than this has been lost."""
POLL_ROUNDS = 10_000
"""About 20 us between two looks at the queue."""


@dataclass(slots=True)
class Job:
    """A load with what it carries.

    Attributes:
        load: its record.
        slot: [values] float32, where the expert goes.
        blob: the expert in host memory.
        parts: what the link has to carry, or has carried.
        error: why it failed.
    """

    load: Load
    slot: torch.Tensor
    blob: ExpertBlob
    parts: list[Bytes] = field(default_factory=list)
    error: Exception | None = None


class Pipeline:
    """Moves experts from a store over a link into slots.

    Args:
        store: the experts in host memory.
        link: carries their bytes.
    """

    def __init__(self, store: ExpertStore, link: Link) -> None:
        self.store, self.link = store, link
        self.on_host = store.codec.placement == "host"
        self.ready: SimpleQueue[Job] = SimpleQueue()
        busy(1)  # the first call of a process loads it, which takes 0.2 s
        self._last = Worker("device decoder", self._device_decode, self._fail)
        self._middle = Worker("link", self._carry, self._fail)
        self._first = Worker("host decoder", self._host_decode, self._fail)

    def ask(self, layer: int, expert: int, slot: torch.Tensor) -> Load:
        """Start to load an expert into a slot; returns its record at once."""
        blob = self.store.blobs[layer][expert]
        nbytes = blob.stored_bytes if self.on_host else blob.nbytes
        job = Job(Load(layer, expert, nbytes, time.perf_counter()), slot, blob)
        (self._first if self.on_host else self._middle).put(job)
        return job.load

    def wait(self) -> Job:
        """The next job that is done, in the order in which they became ready.

        It is polled for by a busy core, as a device that computes does not fall asleep: a core
        that slept would go on with cold caches and a low clock.

        Raises:
            RunError: a stage failed, or nothing came within PATIENCE_S.
        """
        patience = time.perf_counter() + PATIENCE_S
        while self.ready.empty():
            busy(POLL_ROUNDS)
            if time.perf_counter() > patience:
                raise RunError(f"no expert arrived within {PATIENCE_S:g} s")
        job = self.ready.get()
        if job.error is not None:
            place = f"expert {job.load.expert} of layer {job.load.layer}"
            raise RunError(f"loading {place} failed: {job.error}") from job.error
        return job

    def close(self) -> None:
        """End the threads."""
        for worker in (self._first, self._middle, self._last):
            worker.stop()

    def _done(self, job: Job, stage: Stage, start: float) -> None:
        job.load.spans.append(Span(stage, start, time.perf_counter()))

    def _fail(self, job: Job, error: Exception) -> None:
        job.error = error
        self.ready.put(job)

    def _host_decode(self, job: Job, start: float) -> None:
        matrices = [job.blob.decoded(number).view(-1) for number in range(len(job.blob.blobs))]
        job.parts = [weights.view(torch.uint8).numpy() for weights in matrices]
        self._done(job, "host decode", start)
        self._middle.put(job)

    def _carry(self, job: Job, start: float) -> None:
        job.parts = self.link.copy(job.parts or job.blob.payloads())
        self._done(job, "link", start)
        self._last.put(job)

    def _device_decode(self, job: Job, start: float) -> None:
        unpack(job.blob, job.parts, job.slot, decoded=self.on_host)
        self._done(job, "device decode", start)
        self.ready.put(job)


def unpack(blob: ExpertBlob, parts: list[Bytes], slot: torch.Tensor, *, decoded: bool) -> None:
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
