"""Host decode: blobs to weights in their stored dtype, in processes beside the one that computes.

A codec may hold the interpreter lock for as long as it decodes, as pysz does, and a thread that
waits for the lock cannot compute. So every host codec decodes in a process of its own, which also
survives a stream that crashes the decoder.
"""

from operator import attrgetter
from queue import SimpleQueue

import torch

from offsim.codec.expert import ExpertBlob
from offsim.codec.pool import ARENAS, DecodePool
from offsim.errors import CodecError, RunError
from offsim.record.events import Stage
from offsim.runtime.cores import cores
from offsim.runtime.store import ExpertStore
from offsim.runtime.waiting import Job

_reserve: SimpleQueue[DecodePool] = SimpleQueue()
"""Pools of one process that nobody uses now. Starting one takes seconds, so that they are kept from
run to run; with the program they end."""


class HostDecode:
    """Decodes blobs to their stored dtype, in host memory.

    Each of its threads has a process to itself, on the cores of the workers, that is up and warm
    once this is made. A program that makes one does so under `if __name__ == "__main__"`, since
    every process imports its main module.

    Args:
        threads: how many at once.
        store: whose blobs.

    Raises:
        RunError: a process did not start, or cannot decode.
    """

    stage: Stage = "host decode"
    sleeps = False

    def __init__(self, threads: int, store: ExpertStore) -> None:
        self.threads = threads
        self._idle: SimpleQueue[DecodePool] = SimpleQueue()
        largest = [_largest(part) for part in (store, store.coarser) for _ in range(ARENAS)]
        for pool in [_taken() for _ in range(threads)]:
            try:
                for blob in largest:  # so that no arena has to grow during the run
                    _together(pool, blob)
            except CodecError as error:
                raise RunError(
                    f"codec {store.codec} cannot decode in a process: {error}"
                ) from error
            self._idle.put(pool)

    def serve(self, job: Job) -> bool:
        """Decode the blob of a load, which carries the weights from here on."""
        matrices = [weights.view(-1) for weights in self.decode(job.held)]
        job.parts = [weights.view(torch.uint8).numpy() for weights in matrices]
        return True

    def decode(self, blob: ExpertBlob) -> list[torch.Tensor]:
        """Decode an expert in a process that is free.

        Args:
            blob: of the store.

        Returns:
            Gate, up and down in their stored dtype and shapes.

        Raises:
            CodecError: a matrix could not be decoded, or the process died over it.
            RunError: the process had died before.
        """
        pool = self._idle.get_nowait()  # there are as many as threads
        try:
            if not pool.is_alive():  # the pool would start another, in the midst of the run
                raise RunError("the process that decodes had ended; run it again")
            return _together(pool, blob)
        finally:
            self._idle.put(pool)

    def close(self) -> None:
        """Keep the processes for others, once the threads have ended.

        That of a thread which has not ended is ended with the thread.
        """
        while not self._idle.empty():
            pool = self._idle.get()
            if pool.is_alive():
                _reserve.put(pool)
            else:
                pool.close()


def _largest(store: ExpertStore) -> ExpertBlob:
    """The expert of the most bytes; all of a store have as many weights."""
    return max((blob for row in store.blobs for blob in row), key=attrgetter("nbytes"))


def _together(pool: DecodePool, blob: ExpertBlob) -> list[torch.Tensor]:
    """Gate, up and down of an expert, handed over once."""
    return pool.decode(blob.blobs, together=len(blob.blobs))


def _taken() -> DecodePool:
    """A pool out of the reserve, or a new one."""
    while not _reserve.empty():
        pool = _reserve.get()
        if pool.is_alive():
            return pool
    return DecodePool(1, cores()[1])
