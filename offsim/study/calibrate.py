"""Calibrating this machine on a model: the link, compute, hand-overs, the codecs."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedModel

from offsim.calibration.measure import measure_link
from offsim.calibration.schema import Calibration, Machine, ModelFacts
from offsim.runtime.link import Link
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import cores, pin, single_compute_thread
from offsim.study.prepare import Key
from offsim.study.samplers import CodecSampler, ComputeSampler

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


FULL = Effort(rounds=5, requests=4, tokens=24, repeats=8, experts=12)
QUICK = Effort(rounds=2, requests=3, tokens=12, repeats=4, experts=9)


def calibrate(
    model: PreTrainedModel,
    name: str,
    stores: Mapping[Key, ExpertStore],
    effort: Effort = FULL,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Calibration:
    """Measure everything that the simulator needs.

    Args:
        model: with its experts resident.
        name: of the model.
        stores: the codecs and bounds to measure, with the model's experts under each; one is raw.
        effort: how much is measured.
        progress: told what is measured next and which share is done.
    """
    raw = stores["raw", 0.0]
    compute = ComputeSampler(model, raw, effort.tokens)
    codecs = [CodecSampler(model, store, effort.tokens) for store in stores.values()]
    for number in range(effort.rounds):
        share = number / effort.rounds
        progress(f"calibrating compute, round {number + 1} of {effort.rounds}", share)
        compute.round(effort.requests, SEED + number)
        progress(f"calibrating the codecs, round {number + 1} of {effort.rounds}", share)
        for codec in codecs:
            codec.round(effort.experts, effort.repeats, SEED - number)
    progress("calibrating the link", 0.99)
    overshoot = [seconds for codec in codecs for seconds in codec.overshoot]
    with single_compute_thread():
        pin(cores()[1])
        link = measure_link(Link().copy, effort.rounds * effort.repeats, overshoot)
    figures, handover = compute.figures()
    return Calibration(
        machine=this_machine(),
        model=ModelFacts(
            name=name,
            layers=raw.shape.layers,
            experts=raw.shape.experts,
            top_k=model.config.num_experts_per_tok,
            hidden=raw.shape.hidden,
            width=raw.shape.width,
            dtype_bytes=raw.shape.dtype_bytes,
        ),
        link=link,
        compute=figures,
        handover=handover,
        codecs=[codec.figures() for codec in codecs],
    )


def this_machine() -> Machine:
    """What this process runs on."""
    packages = ("offsim", "numpy", "torch", "transformers", "pysz", "numba")
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **{p: version(p) for p in packages}},
        measured_on=date.today(),
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for text in info.read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()
