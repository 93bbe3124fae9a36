"""A guard against what a shared machine does beside a run: a reference, measured around each.

What else runs on a machine slows whatever touches memory, for seconds or minutes at a time. The
same few tokens with every expert resident are timed before and after every run, of a calibration
and of a check alike. The machine is calm where they take about as long as at its best; a run waits
until it is, and is made again where it was not any more when the run was over. Nothing is chosen by
how long a run itself took, nor by any prediction.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Generic

import numpy as np
import torch

from offsim.calibration.schema import ModelFacts
from offsim.codec import Codec
from offsim.policy.bounds import Bounds
from offsim.policy.policy import Policy
from offsim.runtime.devices import Device
from offsim.runtime.run import Run
from offsim.runtime.store import ExpertStore
from offsim.study.prepare import Recorded
from offsim.study.subject import Request, Subject
from offsim.trace import DECODE, Trace

TOKENS = 8
"""Of the request of the reference, whose decode steps count."""
BEST = 0.2
"""The quantile of all measurements that is called the best: the very fastest are chance."""
CALM = 1.06
"""So many times the best, and the machine is not calm."""
SEED = 1234
"""Of its prompt."""
FIRST = 20
"""Measurements before anything is run, over FIRST * PAUSE_S seconds, so that there is a best."""
PAUSE_S = 0.25
"""Between two looks at a machine that is not calm."""
PATIENCE = 1.0
"""Times the duration of all runs that counted: so much is spent on waiting and on runs made again,
at most; beyond that a run counts as it comes."""
FEWEST_S = 10.0
"""That may be spent so in any case."""


def reference(subject: Subject[Request], raw: ExpertStore) -> Callable[[], float]:
    """Work whose seconds are returned at each call: a decode step with every expert resident.

    Args:
        subject: whose experts are in the store.
        raw: without compression.
    """
    part = subject.resident(raw)
    policy, asked = part.policy(slots=part.shape.experts), subject.drawn(1, SEED) * 2

    def measured() -> float:
        record = subject.run(part, policy, asked, TOKENS).record
        return median(
            step.end - step.start
            for step in record.steps
            if step.request and step.phase == DECODE  # the first request fills the slots
        )

    return measured


@dataclass
class Guard:
    """Says when the machine is calm, and keeps count.

    Attributes:
        reference: gives the seconds of the reference, measured now.
        clock: s.
        sleep: waits so many seconds.
        seen: all measurements of the reference, s.
        runs: that counted.
        again: that were made again.
        disturbed: that counted although the machine was not calm.
        counted_s: duration of the runs that counted.
        spent_s: on waiting, and on runs that did not count.
    """

    reference: Callable[[], float]
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    seen: list[float] = field(default_factory=list)
    runs: int = 0
    again: int = 0
    disturbed: int = 0
    counted_s: float = 0.0
    spent_s: float = 0.0

    def guarded(self, run: Callable[[], Run]) -> Run:
        """Make a run while the machine is calm, or as well as can be."""
        while len(self.seen) < FIRST:
            self.sleep(PAUSE_S)
            self._look()
        while True:
            calm = self._settled()
            start = self.clock()
            made = run()
            seconds = self.clock() - start
            calm = self._calm(self._look()) and calm
            if calm or not self._patient:
                break
            self.again += 1
            self.spent_s += seconds
        self.runs += 1
        self.disturbed += not calm
        self.counted_s += seconds
        return made

    def _settled(self) -> bool:
        """Wait for a calm machine; whether it is one."""
        calm = self._calm(self._look())
        while not calm and self._patient:
            self.sleep(PAUSE_S)
            self.spent_s += PAUSE_S
            calm = self._calm(self._look())
        return calm

    def _look(self) -> float:
        self.seen.append(self.reference())
        return self.seen[-1]

    def _calm(self, seconds: float) -> bool:
        return seconds <= CALM * float(np.quantile(self.seen, BEST))

    @property
    def _patient(self) -> bool:
        return self.spent_s < max(FEWEST_S, PATIENCE * self.counted_s)


@dataclass(frozen=True)
class Guarded(Generic[Request]):
    """A subject whose runs are guarded; otherwise the subject itself.

    Attributes:
        subject: what is run.
        guard: shared by all that is to be compared.
    """

    subject: Subject[Request]
    guard: Guard

    @property
    def facts(self) -> ModelFacts:
        """Those of the subject."""
        return self.subject.facts

    @property
    def device(self) -> Device:
        """Likewise."""
        return self.subject.device

    @property
    def lookahead(self) -> int:
        """Likewise."""
        return self.subject.lookahead

    def matrices(self) -> Sequence[torch.Tensor]:
        """Likewise."""
        return self.subject.matrices()

    def store(
        self, codec: Codec, bound: float | Bounds, progress: Callable[[], None] = lambda: None
    ) -> ExpertStore:
        """Likewise."""
        return self.subject.store(codec, bound, progress)

    def resident(self, store: ExpertStore) -> ExpertStore:
        """Likewise."""
        return self.subject.resident(store)

    def drawn(self, requests: int, seed: int) -> list[Request]:
        """Likewise."""
        return self.subject.drawn(requests, seed)

    def longest(self, tokens: int, seed: int) -> list[Request]:
        """Likewise."""
        return self.subject.longest(tokens, seed)

    def checked(self, requests: int, seed: int) -> list[Request]:
        """Likewise."""
        return self.subject.checked(requests, seed)

    def steps(self, requests: Sequence[Request], tokens: int) -> int:
        """Likewise."""
        return self.subject.steps(requests, tokens)

    def run(
        self,
        store: ExpertStore,
        policy: Policy,
        requests: Sequence[Request],
        tokens: int,
        link_bytes_per_s: float | None = None,
        progress: Callable[[], None] = lambda: None,
        profile: Trace | None = None,
        folder: Path | None = None,
    ) -> Run:
        """The first run that was made on a calm machine."""

        def made() -> Run:
            return self.subject.run(
                store, policy, requests, tokens, link_bytes_per_s, progress, profile, folder
            )

        return self.guard.guarded(made)

    def recorded(
        self, store: ExpertStore, requests: Sequence[Request], tokens: int, lookahead: int = 0
    ) -> Recorded:
        """Those of the subject; a recording is not timed."""
        return self.subject.recorded(store, requests, tokens, lookahead)
