"""What experts cost that are not in host memory, or stay there: sampled through the real run."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Generic

from offsim.calibration.fit import undisturbed_rounds
from offsim.calibration.measure import by_size
from offsim.calibration.placed import Sample, disk_figures, hosted, reads
from offsim.calibration.schema import Calibration
from offsim.runtime.pipeline import STATE_BYTES
from offsim.runtime.store import ExpertStore
from offsim.study.foreseen import LINK_SECONDS
from offsim.study.rounds import Rounds
from offsim.study.subject import Request, Subject

TOKENS = 4
"""Of the request of these runs; its prompt has experts of more than one token."""
MOST_TOKENS = 1 << 20
"""Of an expert, up to which the host computes it: always."""


class PlacedSampler(Generic[Request]):
    """A disk beneath host memory, and experts that the host computes, where it can.

    Args:
        subject: whose experts are in the stores.
        raw: the store without compression.
        others: under the other codecs and bounds; the one with the smallest blobs is read from
            disk too, so that latency and bandwidth can be told apart.
        folder: on the disk; None: where temporary files are.
    """

    def __init__(
        self,
        subject: Subject[Request],
        raw: ExpertStore,
        others: Iterable[ExpertStore],
        folder: Path | None = None,
    ) -> None:
        self.subject, self.folder = subject, folder
        self._raw = subject.resident(raw)
        small = min(map(subject.resident, [raw, *others]), key=lambda store: store.nbytes)
        self._stores = [self._raw] if small.nbytes == self._raw.nbytes else [self._raw, small]
        self._read: list[Rounds[list[Sample]]] = [Rounds() for _ in self._stores]
        self._hosted: Rounds[list[Sample]] = Rounds()

    def round(self, tokens: int, seed: int) -> None:
        """Run a request with nothing in host memory, and with all experts computed there.

        Args:
            tokens: of the request, at most.
            seed: of it.
        """
        asked, few = self.subject.drawn(1, seed), min(tokens, TOKENS)
        raw, pace = self._raw, self._raw.shape.bytes / LINK_SECONDS
        for store, seen in zip(self._stores, self._read, strict=True):
            policy = store.policy(slots=0, host_bytes=0)
            run = self.subject.run(store, policy, asked, few, pace, folder=self.folder)
            seen.append(list(reads(run.record)))
        if self.subject.host_computes:
            policy = raw.policy(slots=0, host_tokens=MOST_TOKENS)
            run = self.subject.run(raw, policy, asked, few, pace)
            self._hosted.append(list(hosted(run.record, 2 * raw.shape.hidden * STATE_BYTES)))

    def added_to(self, calibration: Calibration) -> Calibration:
        """A calibration with the disk and the host in it, by the undisturbed rounds."""
        kept = [undisturbed_rounds(seen, _seconds) for seen in self._read]
        disk = disk_figures([*chain(*chain(*kept))])
        made = calibration.model_copy(update={"disk": disk})
        if not self._hosted:
            return made
        on_host = by_size([*chain(*undisturbed_rounds(self._hosted, _seconds))])
        compute = made.compute.model_copy(update={"host_expert": on_host})
        return made.model_copy(update={"compute": compute})


def _seconds(samples: list[Sample]) -> float:
    """Of all of a round, a byte or a token."""
    return sum(seconds for _, seconds in samples) / sum(count for count, _ in samples)
