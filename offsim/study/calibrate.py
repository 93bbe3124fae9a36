"""Calibrating this machine on a model: the link, compute, hand-overs, the codecs."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Generic

from offsim.calibration.measure import link_figures
from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    CopyFigures,
    DeviceFigures,
    Machine,
)
from offsim.codec.cuszp_kernels import kernels
from offsim.runtime.store import ExpertStore
from offsim.study.adding_up import added_up
from offsim.study.codec_sampler import CodecSampler
from offsim.study.compute_sampler import ComputeSampler
from offsim.study.decoders import DecoderSampler
from offsim.study.foreseen import ForesightSampler, beside
from offsim.study.kept import KeptSampler, can_be_kept
from offsim.study.machine import cpu_name
from offsim.study.placed import PlacedSampler
from offsim.study.prepare import Key
from offsim.study.rounds import drawn
from offsim.study.subject import Request, Subject
from offsim.study.transfers import Samples, sweep_device
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
        placed: whether a disk beneath host memory and experts on the host are measured too.
    """

    rounds: int
    requests: int
    tokens: int
    repeats: int
    placed: bool = False


FULL = Effort(rounds=8, requests=3, tokens=24, repeats=5)
QUICK = Effort(rounds=2, requests=3, tokens=12, repeats=4)


class Calibrator(Generic[Request]):
    """Measures everything that the simulator needs, round by round.

    Args:
        subject: the model, or what is driven in its place.
        stores: the codecs and bounds to measure, with its experts under each; one is raw.
        effort: how much is measured in a round.
        seed: of the requests of the first round.
        folder: on the disk that is measured, if one is; None: where temporary files are.
        decoders: what else the device decodes with, to be measured beside the runs.
    """

    def __init__(
        self,
        subject: Subject[Request],
        stores: Mapping[Key, ExpertStore],
        effort: Effort,
        seed: int = SEED,
        decoders: DecoderSampler | None = None,
        folder: Path | None = None,
    ) -> None:
        self.subject, self.effort, self.seed = subject, effort, seed
        self.compute = ComputeSampler(subject, stores["raw", 0.0], effort.tokens)
        self.codecs = {
            key: CodecSampler(subject, store, effort.tokens) for key, store in stores.items()
        }
        self.foreseen = {
            key: ForesightSampler(subject, store, effort.tokens) for key, store in stores.items()
        }
        self.kept = {
            key: KeptSampler(subject, store, effort.tokens)
            for key, store in stores.items()
            if can_be_kept(store.codec)
        }
        self.placed = (
            PlacedSampler(subject, stores["raw", 0.0], stores.values(), folder)
            if effort.placed
            else None
        )
        self.decoders = decoders
        self.rounds = 0

    def round(self) -> None:
        """Measure everything once more, on prompts that no other round has."""
        effort = self.effort
        self.compute.round(effort.requests, self.seed + self.rounds)
        for codec in self.codecs.values():
            codec.round(effort.repeats, self.seed - 1 - self.rounds)
        for foreseen in self.foreseen.values():
            foreseen.round(self.subject.drawn(1, self.seed + self.rounds))
        for kept in self.kept.values():
            kept.round(self.subject.drawn(1, self.seed + self.rounds))
        if self.placed is not None:
            self.placed.round(effort.tokens, self.seed - 1 - self.rounds)
        if self.decoders is not None:
            self.decoders.round(effort.repeats)
        self.rounds += 1

    def result(self, replicates: int = 0) -> Calibration:
        """What all rounds gave.

        Args:
            replicates: to keep, beside the inner runs, so that predictions have a band; 0: neither.
        """
        repeats, largest = self.effort.repeats, self.subject.facts.expert_bytes
        copied = sweep_device(self.subject.device, self.rounds * repeats, largest)

        def made(numbers: Sequence[int]) -> Calibration:
            places = [n * repeats + at for n in numbers for at in range(repeats)]
            return self._made(numbers, {s: [c[p] for p in places] for s, c in copied.link.items()})

        calibration = made(range(self.rounds))
        if replicates:
            of_codecs = (one for codec in self.codecs.values() for one in codec.inner)
            inners = [*self.compute.inner, *of_codecs]
            calibration = with_uncertainty(calibration, made, self.rounds, inners, replicates)
        return calibration.model_copy(update={"device": self._device(copied.others)})

    def _device(self, copies: list[CopyFigures]) -> DeviceFigures | None:
        """What is known of a device with memory of its own beside what a simulation goes by."""
        if not copies:
            return None
        decoders = self.decoders
        return DeviceFigures(
            label="MEASURED",
            name=str(self.subject.device),
            copies=copies,
            decoders=[] if decoders is None else decoders.figures(),
            left_out=[] if decoders is None else decoders.left_out,
        )

    def _made(self, numbers: Sequence[int], copies: Samples) -> Calibration:
        """What some rounds gave, each as often as it is named, and copies over the plain link."""
        codecs = {key: drawn(codec, numbers) for key, codec in self.codecs.items()}
        overshoot = [s for codec in codecs.values() for part in codec.overshoot for s in part]
        link = link_figures(copies, overshoot)
        sampled = drawn(self.compute, numbers)
        compute, handover = sampled.figures()
        foresight = {
            key: drawn(one, numbers).figures(sampled.resident_times, handover.submit_s.value)
            for key, one in self.foreseen.items()
        }
        beside_raw = foresight["raw", 0.0]
        compute = compute.model_copy(update={"foresight": beside_raw})

        def figures_of(key: Key) -> CodecFigures:
            found, kept = codecs[key].figures(compute), None
            if key in self.kept:
                kept = drawn(self.kept[key], numbers).figures(found.decode_slowdown)
            ahead = beside(foresight[key], beside_raw)
            return found.model_copy(update={"foresight": ahead, "kept": kept})

        made = Calibration(
            machine=this_machine(),
            model=self.subject.facts,
            link=link,
            compute=compute,
            handover=handover,
            codecs=[figures_of(key) for key in codecs],
        )
        for number, codec in enumerate(codecs.values()):
            made = added_up(made, number, *codec.whole)
        return made if self.placed is None else drawn(self.placed, numbers).added_to(made)


def calibrate(
    subject: Subject[Request],
    stores: Mapping[Key, ExpertStore],
    effort: Effort = FULL,
    progress: Callable[[str, float], None] = lambda *_: None,
    decoders: DecoderSampler | None = None,
    folder: Path | None = None,
) -> Calibration:
    """Calibrate this machine on a model; arguments as of `Calibrator`.

    Args:
        subject: see there.
        stores: see there.
        effort: see there.
        progress: told what is measured next and which share is done.
        decoders: see there.
        folder: see there.
    """
    calibrator = Calibrator(subject, stores, effort, decoders=decoders, folder=folder)
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
