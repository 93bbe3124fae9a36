"""The sampler of compute and hand-overs: measured through the real run, round by round.

A calibration takes several rounds over everything, because a shared machine drifts: what is
measured in one go is right for that minute only.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Generic

from offsim.calibration.fit import figure, undisturbed_rounds
from offsim.calibration.schema import (
    ComputeFigures,
    HandoverFigures,
)
from offsim.calibration.stamps import (
    Observed,
    asking_nothing,
    compute_figures,
    handover_figures,
)
from offsim.record import RunRecord
from offsim.record.times import StepTimes
from offsim.runtime.run import Run
from offsim.runtime.store import ExpertStore
from offsim.study.rounds import InnerRuns, Rounds
from offsim.study.subject import Request, Subject
from offsim.trace import DECODE

MISS_SECONDS = (0.0003, 0.001, 0.003, 0.01)
"""How long a raw expert is on the link in the runs that measure hand-overs, s."""
HALVED_SECONDS = (0.001, 0.004, 0.016)
"""The same in the runs that measure what compute loses when it stood idle, and how soon it is warm
again, s."""
RESIDENT_TOKENS = 16
"""Of the request by which the compute of a layer is measured in short."""


class ComputeSampler(Generic[Request]):
    """Compute, hand-overs and cooling of a model.

    Args:
        subject: whose experts are in the store.
        raw: the store without compression.
        tokens: of each request.

    Attributes:
        inner: the policies that each round runs, but for those that only prefetch.
    """

    def __init__(self, subject: Subject[Request], raw: ExpertStore, tokens: int) -> None:
        self.inner = InnerRuns()
        self.subject, self.raw, self.tokens = subject, subject.resident(raw), tokens
        self._resident: Rounds[Observed] = Rounds()
        self._halved: list[Rounds[Observed]] = [Rounds() for _ in HALVED_SECONDS]
        self._missing: list[Rounds[Observed]] = [Rounds() for _ in MISS_SECONDS]
        self._long: Rounds[Observed] = Rounds()

    def round(self, requests: int, seed: int) -> None:
        """Run some requests with all, half and none of the experts resident.

        Args:
            requests: how many; each is run twice, first to fill the slots.
            seed: of the requests.
        """
        asked = self.subject.drawn(requests, seed)
        every = self.raw.shape.experts
        self._resident.append(_after(self._noted(every, asked * 2, None), requests))
        for seconds, seen in zip(MISS_SECONDS, self._missing, strict=True):
            seen.append(_without(self._noted(0, asked[:1], seconds), 1))
        for seconds, seen in zip(HALVED_SECONDS, self._halved, strict=True):
            some = asked if seconds == HALVED_SECONDS[0] else asked[:1]
            seen.append(_after(self._noted(every // 2, [asked[-1], *some], seconds), 1))
        if longest := self.subject.longest(self.tokens, seed):
            self._long.append(_after(self._run(every, longest * 2, None), 1))

    def figures(self) -> tuple[ComputeFigures, HandoverFigures]:
        """What the undisturbed rounds gave."""
        times = self.resident_times
        missing = [_pooled(seen) for seen in self._missing]
        handover = handover_figures(missing, figure(list(asking_nothing(times))).value)
        submit = handover.submit_s.value
        long = _pooled(self._long)[1] if self._long else []
        halved = [_pooled(seen) for seen in self._halved]
        return compute_figures(times, missing, halved, submit, long), handover

    @property
    def resident_times(self) -> list[StepTimes]:
        """Stamps of the steps with every expert resident, of the undisturbed rounds."""
        return _pooled(self._resident)[1]

    def _noted(self, slots: int, asked: list[Request], seconds: float | None) -> Run:
        """A run that the other rounds are to predict."""
        run = self._run(slots, asked, seconds)
        self.inner.note(self.raw.policy(slots=slots), self._pace(seconds), run)
        return run

    def _run(self, slots: int, asked: list[Request], seconds: float | None) -> Run:
        policy, pace = self.raw.policy(slots=slots), self._pace(seconds)
        return self.subject.run(self.raw, policy, asked, self.tokens, pace)

    def _pace(self, seconds: float | None) -> float | None:
        return None if seconds is None else self.raw.shape.bytes / seconds


def _without(run: Run, skip: int) -> Observed:
    """The steps of a run but the first `skip`."""
    return RunRecord("MEASURED", run.record.steps[skip:]), run.times[skip:]


def _after(run: Run, requests: int) -> Observed:
    """The steps of a run after those of its first requests."""
    return _without(run, sum(step.request < requests for step in run.record.steps))


def _pooled(rounds: Sequence[Observed]) -> Observed:
    """All steps of the undisturbed rounds."""
    kept = undisturbed_rounds(rounds, _dense_s)
    steps = [step for record, _ in kept for step in record.steps]
    return RunRecord("MEASURED", steps), [times for _, seen in kept for times in seen]


def _dense_s(seen: Observed) -> float:
    """Median of the dense part of a layer over the decode steps of a round, s."""
    return median(
        after.enter - before.leave
        for step in seen[1]
        if step.tokens == 1
        for before, after in pairwise(step.layers)
    )


def resident_layer_s(
    subject: Subject[Request], store: ExpertStore, asked: Sequence[Request]
) -> float:
    """Compute of one layer and token with every expert resident, s: a short measurement.

    Args:
        subject: whose experts are in the store.
        store: under any codec.
        asked: requests; the last is run twice, first to fill the slots.
    """
    part = subject.resident(store)
    policy = part.policy(slots=part.shape.experts)
    run = subject.run(part, policy, [asked[-1]] * 2, RESIDENT_TOKENS)
    layers = [
        layer
        for step, times in zip(run.record.steps, run.times, strict=True)
        if step.request and step.phase == DECODE
        for layer in pairwise(times.layers)
    ]
    return figure([after.enter - before.enter for before, after in layers]).value
