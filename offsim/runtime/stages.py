"""What each stage does with a load: host decode, host compute, link, device decode.

The disk is in `offsim.runtime.disk`.
"""

from collections.abc import Sequence

import torch

from offsim.codec import Blob, decode
from offsim.codec.expert import ExpertBlob
from offsim.model.experts import ExpertShape, ExpertWeights
from offsim.policy.transfer import Transfer
from offsim.record.events import Stage
from offsim.runtime.link import Bytes, Link
from offsim.runtime.waiting import Job


class HostDecode:
    """Decodes blobs to their stored dtype, in host memory.

    Args:
        threads: how many at once.
    """

    stage: Stage = "host decode"
    sleeps = False

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def serve(self, job: Job) -> bool:
        """Decode the blob of a load, which carries the weights from here on."""
        blob = job.held
        matrices = [blob.decoded(number).view(-1) for number in range(len(blob.blobs))]
        job.parts = [weights.view(torch.uint8).numpy() for weights in matrices]
        return True


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
    return torch.from_numpy(output).view(torch.float32).view(job.hidden.shape)


class Carry:
    """Carries loads over the link, whole or in chunks.

    Args:
        link: that carries.
        transfer: in which parts, and over how many channels.
    """

    stage: Stage = "link"

    def __init__(self, link: Link, transfer: Transfer) -> None:
        self._link, self._chunk_bytes = link, transfer.chunk_bytes
        self.threads, self.sleeps = transfer.channels, link.bytes_per_s is not None

    def serve(self, job: Job) -> bool:
        """Carry a load, or the next of equal chunks of it."""
        parts = job.parts or job.held.payloads()
        if self._chunk_bytes is None:
            job.carried, last = self._link.carry(parts), True
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
        begin, end = (done * nbytes // chunks for done in (job.chunks, job.chunks + 1))
        self._link.carry_chunk(parts, job.carried, begin, end)
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
    """

    stage: Stage = "device decode"
    threads = 1
    sleeps = False

    def __init__(self, *, decoded: bool, keep: bool) -> None:
        self._decoded, self._keep = decoded, keep

    def serve(self, job: Job) -> bool:
        """Decode a load into its slot."""
        unpack(job.held, job.carried, job.slot, decoded=self._decoded)
        if self._keep and job.kept is None:
            pairs = zip(job.held.blobs, job.carried, strict=True)
            job.kept = ExpertBlob(tuple(Blob(blob.header, part.data) for blob, part in pairs))
        job.carried, job.blob = (), None
        return True


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
