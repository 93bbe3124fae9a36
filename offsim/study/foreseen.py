"""What prefetchers themselves take, sampled through the real run, beside the decoder of a codec."""

from collections.abc import Sequence
from typing import Generic

from offsim.calibration.fit import undisturbed_rounds
from offsim.calibration.schema import ForesightFigures
from offsim.calibration.stamps import foresight_figures
from offsim.policy.prefetchers.registry import PREFETCHERS
from offsim.record.times import StepTimes
from offsim.runtime.store import ExpertStore
from offsim.study.rounds import Rounds
from offsim.study.subject import Request, Subject
from offsim.trace import Trace

FORESEEN = (("gate", 1), ("gate", 2), ("last-token", 1), ("transition", 1), ("popularity", 1))
"""Prefetchers whose own time is measured, and how many layers they look ahead."""
LINK_SECONDS = 0.001
"""How long a raw expert is on the link in these runs, s: it is waited for, so that the code of a
prefetcher runs with cold caches and beside other threads, as elsewhere."""


class ForesightSampler(Generic[Request]):
    """The time of each prefetcher beside that of loads, with slots for half of the experts.

    Args:
        subject: whose experts are in the store.
        store: under a codec and bound.
        tokens: of the request of a round.
    """

    def __init__(self, subject: Subject[Request], store: ExpertStore, tokens: int) -> None:
        self.subject, self.store, self.tokens = subject, subject.resident(store), tokens
        self._seen: dict[tuple[str, int], Rounds[list[StepTimes]]] = {
            (name, distance): Rounds()
            for name, distance in FORESEEN
            if not PREFETCHERS[name].gated or distance <= subject.lookahead
        }
        self._profile: Trace | None = None

    def round(self, asked: Sequence[Request]) -> None:
        """Run a request under each prefetcher; its prompt too, for all of whose tokens gates are.

        Args:
            asked: one request.
        """
        store, requests = self.store, list(asked)
        if self._profile is None:
            self._profile = self.subject.recorded(store, requests, self.tokens).trace
        for (name, distance), seen in self._seen.items():
            policy = store.policy(slots=store.shape.experts // 2, prefetch=name, distance=distance)
            pace = store.shape.bytes / LINK_SECONDS
            run = self.subject.run(
                store, policy, requests, self.tokens, pace, profile=self._profile
            )
            seen.append(run.times)

    def figures(self, resident: Sequence[StepTimes], submit_s: float) -> list[ForesightFigures]:
        """What the undisturbed rounds gave.

        Args:
            resident: stamps of steps that fetched nothing, with every expert resident.
            submit_s: compute's own time to ask for one load, s.
        """
        return [
            foresight_figures(
                name,
                distance,
                [step for times in undisturbed_rounds(seen, _seconds) for step in times],
                resident,
                submit_s,
            )
            for (name, distance), seen in self._seen.items()
        ]


def beside(
    own: Sequence[ForesightFigures], raw: Sequence[ForesightFigures]
) -> list[ForesightFigures]:
    """The figures of a codec: of single tokens its own, of prompts those beside raw loads.

    In a prompt many loads are asked for at once and queue, which takes compute longer than so many
    single ones; beside a slow decoder that would be laid to the prefetcher.

    Args:
        own: measured beside the codec.
        raw: of the same prefetchers, beside raw loads.
    """
    return [
        one.model_copy(
            update={
                "seconds": [
                    *(point for point in one.seconds if point.size == 1),
                    *(point for point in plain.seconds if point.size > 1),
                ]
            }
        )
        for one, plain in zip(own, raw, strict=True)
    ]


def _seconds(times: Sequence[StepTimes]) -> float:
    """Of all decode steps of a round, a token, s."""
    decode = [step.end - step.start for step in times if step.tokens == 1]
    return sum(decode) / len(decode)
