"""Calibrating this machine on a model: the link, compute, hand-overs, the codecs."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Generic

from offsim.calibration.measure import measure_link
from offsim.calibration.schema import Calibration, Machine
from offsim.codec.cuszp_kernels import kernels
from offsim.runtime.link import Link
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import cores, pin, single_compute_thread
from offsim.study.prepare import Key
from offsim.study.samplers import CodecSampler, ComputeSampler
from offsim.study.subject import Request, Subject

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
        experts: decoded in a round.
    """

    rounds: int
    requests: int
    tokens: int
    repeats: int
    experts: int


FULL = Effort(rounds=8, requests=3, tokens=24, repeats=5, experts=9)
QUICK = Effort(rounds=2, requests=3, tokens=12, repeats=4, experts=9)


class Calibrator(Generic[Request]):
    """Measures everything that the simulator needs, round by round.

    Args:
        subject: the model, or what is driven in its place.
        stores: the codecs and bounds to measure, with its experts under each; one is raw.
        effort: how much is measured in a round.
    """

    def __init__(
        self, subject: Subject[Request], stores: Mapping[Key, ExpertStore], effort: Effort
    ) -> None:
        self.subject, self.effort = subject, effort
        self.compute = ComputeSampler(subject, stores["raw", 0.0], effort.tokens)
        self.codecs = [CodecSampler(subject, store, effort.tokens) for store in stores.values()]
        self.rounds = 0

    def round(self) -> None:
        """Measure everything once more, on prompts that no other round has."""
        effort = self.effort
        self.compute.round(effort.requests, SEED + self.rounds)
        for codec in self.codecs:
            codec.round(effort.experts, effort.repeats, SEED - 1 - self.rounds)
        self.rounds += 1

    def result(self) -> Calibration:
        """What all rounds gave."""
        overshoot = [seconds for codec in self.codecs for seconds in codec.overshoot]
        with single_compute_thread():
            pin(cores()[1])
            repeats = self.rounds * self.effort.repeats
            link = measure_link(Link().copy, repeats, overshoot, self.subject.facts.expert_bytes)
        compute, handover = self.compute.figures()
        return Calibration(
            machine=this_machine(),
            model=self.subject.facts,
            link=link,
            compute=compute,
            handover=handover,
            codecs=[codec.figures() for codec in self.codecs],
        )


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
    return calibrator.result()


def this_machine() -> Machine:
    """What this process runs on."""
    packages = ("offsim", "numpy", "torch", "transformers", "pysz", "numba")
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            "cuszp kernels": kernels().name,
        },
        measured_on=date.today(),
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for text in info.read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()
