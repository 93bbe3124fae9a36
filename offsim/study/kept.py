"""What experts cost that the device keeps as blobs, sampled through the real run."""

from collections.abc import Sequence
from typing import Generic

from offsim.calibration.fit import undisturbed_rounds
from offsim.calibration.kept import kept_figures
from offsim.calibration.schema import KeptFigures
from offsim.calibration.stamps import Observed
from offsim.codec.base import Codec
from offsim.record import RunRecord
from offsim.runtime.store import ExpertStore
from offsim.study.rounds import Rounds
from offsim.study.subject import Request, Subject

ROOM = 2
"""Slots over experts in these runs: blobs of tiny matrices are larger than what is in them."""


def can_be_kept(codec: Codec) -> bool:
    """Whether a device can keep blobs of a codec, and gains by it."""
    return codec.placement == "device" and codec.name != "raw"


class KeptSampler(Generic[Request]):
    """Decoding at each use, and compute with what was just decoded.

    Args:
        subject: whose experts are in the store.
        store: under a codec that can be kept.
        tokens: of the request of a round.
    """

    def __init__(self, subject: Subject[Request], store: ExpertStore, tokens: int) -> None:
        self.subject, self.store, self.tokens = subject, subject.resident(store), tokens
        self._seen: Rounds[Observed] = Rounds()

    def round(self, asked: Sequence[Request]) -> None:
        """Run a request twice: the second time all its blobs are there.

        Args:
            asked: one request.
        """
        requests, room = list(asked), ROOM * self.store.shape.experts
        policy = self.store.policy(slots=room, keep="compressed")
        run = self.subject.run(self.store, policy, requests * 2, self.tokens)
        first = sum(step.request < len(requests) for step in run.record.steps)
        record = RunRecord("MEASURED", run.record.steps[first:])
        self._seen.append((record, run.times[first:]))

    def figures(self, decode_slowdown: float) -> KeptFigures:
        """What the undisturbed rounds gave; argument as of `kept_figures`."""
        return kept_figures(undisturbed_rounds(self._seen, _seconds), decode_slowdown)


def _seconds(seen: Observed) -> float:
    """Of all decode steps of a round, a token, s."""
    decode = [step.end - step.start for step in seen[1] if step.tokens == 1]
    return sum(decode) / len(decode)
