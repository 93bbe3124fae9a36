"""Loads that wait for a stage, and who of them is next."""

import math
import threading
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from queue import SimpleQueue

import torch

from offsim.codec.expert import ExpertBlob
from offsim.record import Load
from offsim.record.events import Stage
from offsim.runtime.devices import Arrived, Kept, Stamps
from offsim.runtime.link import Bytes

AGE = attrgetter("number")


@dataclass(slots=True, eq=False)
class Job:
    """A load with what it carries.

    `urgent` and `gone` are set by the thread that computes while others serve the job; they count
    from the next time that a stage chooses.

    Attributes:
        number: rises with every load that is asked for.
        load: its record.
        slot: [values] float32, where the expert goes; empty where it does not come in.
        blob: the expert in host memory; None until it was read, and once it is no longer needed.
        urgent: whether compute asks for it now; else it is fetched ahead.
        path: the stages that it still has to pass.
        hidden: [tokens, hidden] float32 that the host computes the expert with, or None.
        gone: whether it was given up: nobody serves it any more.
        there: whether compute has seen that it is done.
        since: when it began to wait for the stage that it is in, s on the run's clock.
        parts: what the link has to carry; empty: the payloads of the blob.
        carried: what has arrived of it.
        stamps: when the device did what it was last asked for; None: when its thread did.
        chunks: that have crossed the link.
        kept: what arrived, where the device keeps blobs.
        error: why it failed.
    """

    number: int
    load: Load
    slot: torch.Tensor
    blob: ExpertBlob | None
    urgent: bool
    path: tuple[Stage, ...] = ()
    hidden: torch.Tensor | None = None
    gone: bool = False
    there: bool = False
    since: float = math.inf
    parts: Sequence[Bytes] = ()
    carried: Sequence[Arrived] = ()
    stamps: Stamps | None = None
    chunks: int = 0
    kept: Kept | None = None
    error: Exception | None = None

    @property
    def held(self) -> ExpertBlob:
        """The blob, which is in host memory by now."""
        assert self.blob is not None
        return self.blob


class Waiting:
    """The loads that wait for one stage: the urgent ones first, of these the oldest.

    Any number of threads may put and get. Who waits in `get` is woken through a `SimpleQueue`,
    which hands over faster than a condition variable does. Choosing takes some microseconds, also
    where no load can overtake another: so that all policies have the hand-overs that are
    calibrated.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[Job] = []  # the oldest first
        self._told: SimpleQueue[bool] = SimpleQueue()  # True for each job put; False: no more
        self._open = True

    def put(self, job: Job | None) -> None:
        """Queue a job; None ends one of those who get, once the jobs so far are taken."""
        if job is not None:
            with self._lock:
                if not self._open:
                    return
                if self._jobs and self._jobs[-1].number > job.number:
                    insort(self._jobs, job, key=AGE)
                else:
                    self._jobs.append(job)
        self._told.put(job is not None)

    def get(self) -> Job | None:
        """The next job, once there is one; None: there will be none."""
        while self._told.get():
            with self._lock:
                job = self._next()
            if job is not None:
                return job
        return None

    def close(self) -> None:
        """Forget all jobs, and those that are still put."""
        with self._lock:
            self._open = False
            self._jobs.clear()

    def _next(self) -> Job | None:
        """Take the next job out; None where all that waited are gone."""
        found, gone = None, False
        for job in self._jobs:
            if job.gone:
                gone = True
            elif found is None or job.urgent:
                found = job
                if job.urgent:
                    break
        if gone:
            self._jobs = [job for job in self._jobs if job is not found and not job.gone]
        elif found is not None:
            self._jobs.remove(found)
        return found
