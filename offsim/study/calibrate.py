"""Calibrating this machine on a model: the link, compute, hand-overs, the codecs."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from typing import Generic

from offsim.calibration.measure import link_figures, sweep_link
from offsim.calibration.schema import Calibration, Machine
from offsim.codec.cuszp_kernels import kernels
from offsim.runtime.cores import cores, pin
from offsim.runtime.link import Link
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import single_compute_thread
from offsim.study.adding_up import added_up
from offsim.study.machine import cpu_name
from offsim.study.prepare import Key
from offsim.study.rounds import drawn
from offsim.study.samplers import CodecSampler, ComputeSampler
from offsim.study.subject import Request, Subject
from offsim.study.uncertain import REPLICATES, with_uncertainty

SEED = 1700
"""Of the prompts of the first round; a check uses other prompts."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: over everything.
        requests: run in a round.
        tokens: written for each.
        repeats: of a timing in a round.
    """

    rounds: int
    requests: int
    tokens: int
    repeats: int


FULL = Effort(rounds=8, requests=3, tokens=24, repeats=5)
QUICK = Effort(rounds=2, requests=3, tokens=12, repeats=4)


class Calibrator(Generic[Request]):
    """Measures everything that the simulator needs, round by round.

    Args:
        subject: the model, or what is driven in its place.
        stores: the codecs and bounds to measure, with its experts under each; one is raw.
        effort: how much is measured in a round.
        seed: of the requests of the first round.
    """

    def __init__(
        self,
        subject: Subject[Request],
        stores: Mapping[Key, ExpertStore],
        effort: Effort,
        seed: int = SEED,
    ) -> None:
        self.subject, self.effort, self.seed = subject, effort, seed
        self.compute = ComputeSampler(subject, stores["raw", 0.0], effort.tokens)
        self.codecs = [CodecSampler(subject, store, effort.tokens) for store in stores.values()]
        self.rounds = 0

    def round(self) -> None:
        """Measure everything once more, on prompts that no other round has."""
        effort = self.effort
        self.compute.round(effort.requests, self.seed + self.rounds)
        for codec in self.codecs:
            codec.round(effort.repeats, self.seed - 1 - self.rounds)
        self.rounds += 1

    def result(self, replicates: int = 0) -> Calibration:
        """What all rounds gave.

        Args:
            replicates: to keep, beside the inner runs, so that predictions have a band; 0: neither.
        """
        repeats, largest = self.effort.repeats, self.subject.facts.expert_bytes
        with single_compute_thread():
            pin(cores()[1])
            copies = sweep_link(Link().carry, self.rounds * repeats, largest)

        def made(numbers: Sequence[int]) -> Calibration:
            places = [n * repeats + at for n in numbers for at in range(repeats)]
            return self._made(numbers, {s: [c[p] for p in places] for s, c in copies.items()})

        calibration = made(range(self.rounds))
        if not replicates:
            return calibration
        inners = [*self.compute.inner, *(one for codec in self.codecs for one in codec.inner)]
        return with_uncertainty(calibration, made, self.rounds, inners, replicates)

    def _made(self, numbers: Sequence[int], copies: Mapping[int, Sequence[float]]) -> Calibration:
        """What some rounds gave, each as often as it is named, and copies over the plain link."""
        codecs = [drawn(codec, numbers) for codec in self.codecs]
        overshoot = [s for codec in codecs for part in codec.overshoot for s in part]
        link = link_figures(copies, overshoot)
        compute, handover = drawn(self.compute, numbers).figures()
        made = Calibration(
            machine=this_machine(),
            model=self.subject.facts,
            link=link,
            compute=compute,
            handover=handover,
            codecs=[codec.figures(compute) for codec in codecs],
        )
        for number, codec in enumerate(codecs):
            made = added_up(made, number, *codec.whole)
        return made


def calibrate(
    subject: Subject[Request],
    stores: Mapping[Key, ExpertStore],
    effort: Effort = FULL,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Calibration:
    """Calibrate this machine on a model; arguments as of `Calibrator`.

    Args:
        subject: see there.
        stores: see there.
        effort: see there.
        progress: told what is measured next and which share is done.
    """
    calibrator = Calibrator(subject, stores, effort)
    for number in range(effort.rounds):
        progress(f"calibrating, round {number + 1} of {effort.rounds}", number / effort.rounds)
        calibrator.round()
    return calibrator.result(REPLICATES)


def this_machine() -> Machine:
    """What this process runs on."""
    packages = ("offsim", "numpy", "torch", "transformers", "pysz", "numba")
    return Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            "cuszp kernels": kernels().name,
        },
        measured_on=date.today(),
    )
