"""What each stage does with a load: host compute, link, device decode.

The disk is in `offsim.runtime.disk`, host decode in `offsim.runtime.host_decode`.
"""

import math
from collections.abc import Sequence

import torch

from offsim.codec import Blob
from offsim.codec.expert import ExpertBlob
from offsim.model.experts import ExpertShape, ExpertWeights
from offsim.policy.transfer import Transfer
from offsim.record.events import Stage
from offsim.runtime.devices import CPU, Carrier, Device, Kept
from offsim.runtime.devices.cpu import unpack
from offsim.runtime.link import Bytes
from offsim.runtime.waiting import Job


class HostCompute:
    """Computes experts in host memory, one at a time, in place of moving them.

    The weights are held in their stored dtype, and computed with in float32, as on the device: the
    outputs are the same to the last bit.

    Args:
        shape: of the experts.
    """

    stage: Stage = "host compute"
    threads = 1
    sleeps = False

    def __init__(self, shape: ExpertShape) -> None:
        # Written to once, so that no expert pays for its memory being given out.
        self._scratch = torch.empty(shape.values).zero_()
        self._weights = ExpertWeights.over(self._scratch, shape)

    @torch.inference_mode()
    def serve(self, job: Job) -> bool:
        """Compute an expert; its load carries the output, [tokens, hidden] float32, from here."""
        assert job.hidden is not None
        decoded = bool(job.parts)
        unpack(job.held, job.parts or job.held.payloads(), self._scratch, decoded=decoded)
        output = self._weights(job.hidden).contiguous()
        job.parts, job.blob = [output.view(-1).view(torch.uint8).numpy()], None
        return True


def output_of(job: Job) -> torch.Tensor:
    """What the host computed, [tokens, hidden] float32, once its load is done."""
    assert job.hidden is not None
    (output,) = job.carried
    return torch.as_tensor(output).view(torch.float32).view(job.hidden.shape)


class Carry:
    """Carries loads over the link, whole or in chunks.

    Args:
        link: that carries.
        transfer: in which parts, and over how many channels.
    """

    stage: Stage = "link"

    def __init__(self, link: Carrier, transfer: Transfer) -> None:
        self._link, self._chunk_bytes = link, transfer.chunk_bytes
        self.threads, self.sleeps = transfer.channels, link.bytes_per_s is not None

    def serve(self, job: Job) -> bool:
        """Carry a load, or the next of equal chunks of it."""
        parts = job.parts or job.held.payloads()
        if self._chunk_bytes is None:
            job.carried, job.stamps = self._link.carry(parts, job.since)
            last = True
        else:
            last = self._chunk(job, parts, self._chunk_bytes)
        if last:
            job.parts = ()
        return last

    def _chunk(self, job: Job, parts: Sequence[Bytes], most: int) -> bool:
        """Carry the next of equal chunks of at most so many bytes; whether it was the last."""
        nbytes = job.load.link_bytes
        chunks = max(1, -(-nbytes // most))
        if not job.chunks:
            job.parts, job.carried = parts, self._link.room(parts)
        # Its next chunk waits from the end of the one before, however late that is noticed.
        since = -math.inf if job.chunks else job.since
        begin, end = (done * nbytes // chunks for done in (job.chunks, job.chunks + 1))
        job.stamps = self._link.carry_chunk(parts, job.carried, begin, end, since)
        job.chunks += 1
        return job.chunks == chunks


class DeviceDecode:
    """Fills slots from what crossed the link.

    It is one thread that does one load after the other, and nobody else writes into slots. So where
    a load is given up while it is being written, whoever got its slot is written after it, and is
    ready later.

    Args:
        decoded: whether the host has decoded what arrives.
        keep: whether the device keeps the blobs that arrive.
        device: whose slots they are.
    """

    stage: Stage = "device decode"
    threads = 1
    sleeps = False

    def __init__(self, *, decoded: bool, keep: bool, device: Device = CPU) -> None:
        self._decoded, self._keep, self._device = decoded, keep, device

    def serve(self, job: Job) -> bool:
        """Decode a load into its slot."""
        held, carried = job.held, job.carried
        job.stamps = self._device.unpack(held, carried, job.slot, decoded=self._decoded)
        if self._keep and job.kept is None:
            headers = tuple(Blob(blob.header, b"") for blob in held.blobs)
            job.kept = Kept(ExpertBlob(headers), carried)
        job.carried, job.blob = (), None
        return True
