"""How an expert gets into a slot: through disk, host decode, host compute, link, device decode.

Few loads pass all of these; each stage has threads of its own (`offsim.runtime.stations`).
"""

import time
from itertools import count
from queue import SimpleQueue

import torch

from offsim.codec.expert import ExpertBlob
from offsim.errors import InputError, RunError
from offsim.policy.transfer import Transfer
from offsim.record import Load
from offsim.record.events import Stage
from offsim.runtime.devices import CPU, Carrier, Device, Kept
from offsim.runtime.disk import Disk, Shelf
from offsim.runtime.host_decode import HostDecode
from offsim.runtime.stages import Carry, DeviceDecode, HostCompute
from offsim.runtime.stations import Station, Work
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import busy
from offsim.runtime.waiting import Job

PATIENCE_S = 30.0
"""A load that takes longer than this has been lost, and so has a thread that does not end."""
POLL_ROUNDS = 10_000
"""About 20 us between two looks at the queue."""
LOOK_AROUND_S = 0.02
"""Between two looks at whether all threads live."""
STATE_BYTES = 2
"""Of one number of a hidden state on the link, there and back alike, as the model of time has it.
Here the output comes back in float32, which is as many bytes, and what the host reads is there."""
WARM_UPS = 5
"""Loads after which a decoder of large experts has the memory that it works in, and keeps it."""
NOWHERE = torch.empty(0)
"""The slot of what does not come in."""


def check_transfer(transfer: Transfer) -> None:
    """Refuse what only a simulation can do.

    Raises:
        InputError: a blob would have to be decoded before all of it is there.
    """
    if transfer.pipelined:
        raise InputError(
            "a real run decodes a blob once all of it is there, since codecs take whole streams: "
            "pipelined transfers can only be simulated"
        )


class Pipeline:
    """Moves experts from a store over a link into slots, or has the host compute them.

    Args:
        store: the experts.
        link: carries their bytes.
        transfer: in which parts, and by how many threads.
        shelf: the blobs in host memory, with a disk beneath; None: all of them are there.
        host: whether the host may compute.
        keep: whether the device keeps the blobs that arrive.
        device: that has the slots.

    Raises:
        InputError: a real run cannot move loads in this way.
        RunError: a process that decodes did not start.
    """

    def __init__(
        self,
        store: ExpertStore,
        link: Carrier,
        transfer: Transfer | None = None,
        *,
        shelf: Shelf | None = None,
        host: bool = False,
        keep: bool = False,
        device: Device = CPU,
    ) -> None:
        transfer = transfer or Transfer()
        check_transfer(transfer)
        self.store, self.shelf = store, shelf
        self.ready: SimpleQueue[Job] = SimpleQueue()
        self._number = count()
        self._link_bytes = {False: _link_bytes(store), True: _link_bytes(store.coarser)}
        decoded = store.codec.placement == "host"
        works: list[Work] = [Disk(shelf)] if shelf is not None else []
        self._host_decode = HostDecode(transfer.decoders, store) if decoded else None
        works += [] if self._host_decode is None else [self._host_decode]
        works += [HostCompute(store.shape)] if host else []
        works += [Carry(link, transfer), DeviceDecode(decoded=decoded, keep=keep, device=device)]
        first: tuple[Stage, ...] = ("host decode",) if decoded else ()
        self._to_slot: tuple[Stage, ...] = (*first, "link", "device decode")
        self._on_host: tuple[Stage, ...] = (*first, "host compute", "link")
        busy(1)  # the first call of a process loads it, which takes 0.2 s
        self._stations = {work.stage: Station(work, self._passed, self._fail) for work in works}

    def ask(
        self,
        layer: int,
        expert: int,
        slot: torch.Tensor,
        *,
        ahead: bool = False,
        from_disk: bool = False,
        coarse: bool = False,
    ) -> Job:
        """Start to load an expert into a slot; returns at once.

        Args:
            layer: MoE layer.
            expert: id in that layer.
            slot: [values] float32.
            ahead: whether nobody waits for it yet.
            from_disk: whether it was decided that its blob is not in host memory.
            coarse: whether it comes as its coarser blob.
        """
        nbytes = self._link_bytes[coarse][layer][expert]
        load = self._load(layer, expert, nbytes, ahead=ahead, from_disk=from_disk)
        if coarse:
            blob: ExpertBlob | None = self.store.coarser.blobs[layer][expert]
        else:
            blob = self._blob(layer, expert, from_disk)
        return self._start(Job(next(self._number), load, slot, blob, not ahead, self._to_slot))

    def compute(
        self, layer: int, expert: int, hidden: torch.Tensor, *, from_disk: bool = False
    ) -> Job:
        """Start to compute an expert on the host; see `offsim.runtime.stages.output_of`.

        Args:
            layer: MoE layer.
            expert: id in that layer.
            hidden: [tokens, hidden] float32, of the tokens that it serves.
            from_disk: as for `ask`.
        """
        load = self._load(layer, expert, 2 * hidden.numel() * STATE_BYTES, from_disk=from_disk)
        load.ends_with = "link"
        blob = self._blob(layer, expert, from_disk)
        return self._start(
            Job(next(self._number), load, NOWHERE, blob, True, self._on_host, hidden=hidden)
        )

    def decode(self, layer: int, expert: int, kept: Kept, slot: torch.Tensor) -> Job:
        """Start to decode an expert that the device keeps as a blob.

        Args:
            layer: MoE layer.
            expert: id in that layer.
            kept: the blob on the device.
            slot: [values] float32.
        """
        load = self._load(layer, expert, 0)
        job = Job(next(self._number), load, slot, kept.headers, True, ("device decode",))
        job.carried, job.kept = kept.parts, kept
        return self._start(job)

    def warm_up(self, slot: torch.Tensor) -> None:
        """Bring an expert a few times before anything is timed, as a system that serves has done.

        The memory in which stages work is given out at its first use, page by page: that made the
        first loads of a run up to ten times slower than all others.

        Args:
            slot: [values] float32, overwritten.

        Raises:
            RunError: a stage failed.
        """
        for _ in range(WARM_UPS):
            load = self._load(0, 0, self._link_bytes[False][0][0])
            blob = self.store.blobs[0][0]
            self._start(Job(next(self._number), load, slot, blob, True, self._to_slot))
            self.wait()

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
            RunError: a stage failed, one of its threads has ended, or nothing came within
                PATIENCE_S.
        """
        now = time.perf_counter()
        patience, look = now + PATIENCE_S, now + LOOK_AROUND_S
        while (job := self.arrived()) is None:
            busy(POLL_ROUNDS)
            now = time.perf_counter()
            if now > look:
                self._check_threads()
                look = now + LOOK_AROUND_S
            if now > patience:
                raise RunError(f"no expert arrived within {PATIENCE_S:g} s")
        return job

    def close(self) -> None:
        """End the threads; what is being served is served to the end of its chunk.

        One that does not end within PATIENCE_S is left to the end of the process.
        """
        stations = list(self._stations.values())[::-1]
        for station in stations:
            station.close()
        until = time.perf_counter() + PATIENCE_S
        for station in stations:
            station.join(until)
        if self._host_decode is not None:
            self._host_decode.close()

    def _load(
        self, layer: int, expert: int, nbytes: int, *, ahead: bool = False, from_disk: bool = False
    ) -> Load:
        """The record of a load that is asked for now."""
        disk = self.store.blobs[layer][expert].nbytes if from_disk else 0
        now = time.perf_counter()
        return Load(layer, expert, nbytes, now, [], ahead, not ahead, disk_bytes=disk)

    def _blob(self, layer: int, expert: int, from_disk: bool) -> ExpertBlob | None:
        """The blob of an expert, or None where it has to be read."""
        if self.shelf is None:
            return self.store.blobs[layer][expert]
        return None if from_disk else self.shelf.take((layer, expert))

    def _start(self, job: Job) -> Job:
        if job.blob is None:
            job.path = ("disk", *job.path)
        self._stations[job.path[0]].put(job)
        return job

    def _passed(self, job: Job) -> None:
        """Send a load on to its next stage, or say that it is there."""
        job.path = job.path[1:]
        (self._stations[job.path[0]] if job.path else self.ready).put(job)

    def _take(self) -> Job:
        """The next load that is done, urgent or not, wanted or not."""
        job = self.ready.get()
        if job.error is not None and not job.gone:
            raise RunError(f"loading {_place(job)} failed: {job.error}") from job.error
        job.there = True
        return job

    def _fail(self, job: Job, error: Exception) -> None:
        job.error = error
        self.ready.put(job)

    def _check_threads(self) -> None:
        """Notice a thread that has ended, which serves nobody any more.

        Raises:
            RunError: one has.
        """
        for stage, station in self._stations.items():
            if (worker := station.dead()) is not None:
                over = "" if worker.serving is None else f" over {_place(worker.serving)}"
                raise RunError(f"a thread of the stage {stage} ended{over}; run it again")


def _link_bytes(store: ExpertStore) -> list[list[int]]:
    """[layers][experts], looked up beforehand, since asking for a load is compute's own time."""
    shape = store.shape
    return [
        [store.link_bytes(layer, expert) for expert in range(shape.experts)]
        for layer in range(shape.layers)
    ]


def _place(job: Job) -> str:
    return f"expert {job.load.expert} of layer {job.load.layer}"
