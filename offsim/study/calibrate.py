"""Calibrating this machine on the embedded model: the link, compute, hand-overs, the codecs."""

import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
from transformers import PreTrainedModel

from offsim.calibration.fit import figure
from offsim.calibration.measure import measure_link, slowdown, timed
from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    ComputeFigures,
    HandoverFigures,
    Machine,
    ModelFacts,
)
from offsim.calibration.stamps import asking_nothing, compute_figures, handover_figures
from offsim.codec import encode
from offsim.model.experts import ExpertWeights, expert_modules, matrices_of
from offsim.policy.policy import Policy
from offsim.record.events import Stage
from offsim.runtime.link import Link
from offsim.runtime.pipeline import Pipeline, unpack
from offsim.runtime.run import run_offloaded
from offsim.runtime.store import ExpertStore
from offsim.runtime.threads import Worker, cores, pin, single_compute_thread
from offsim.study.workload import prompts

SEED = 17
"""Of the prompts that calibration runs; a check uses other prompts."""
MISS_SECONDS = (0.0003, 0.001, 0.003, 0.01)
"""How long a raw expert is on the link in the runs that measure hand-overs and cooling, s."""
HALVED_SECONDS = 0.001
"""The same in the run that measures how soon compute is warm again, s."""
DECODE_SECONDS = 0.002
"""How long a raw expert is on the link while decoding is measured: a worker that has just woken
up decodes more slowly than one in a tight loop, and in a run it has always just woken up."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: counts of repeats."""

    requests: int
    tokens: int
    repeats: int
    experts: int


FULL = Effort(requests=12, tokens=24, repeats=30, experts=36)
QUICK = Effort(requests=4, tokens=12, repeats=8, experts=9)

Store = tuple[str, float]
"""A codec's name and a bound."""


def calibrate(
    model: PreTrainedModel,
    name: str,
    top_k: int,
    stores: dict[Store, ExpertStore],
    effort: Effort = FULL,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Measure everything that the simulator needs.

    Args:
        model: with its experts resident.
        name: of the model.
        top_k: experts a token and layer.
        stores: the codecs and bounds to measure, with the model's experts under each; one is raw.
        effort: how much is measured.
        progress: told what is measured next.
    """
    progress("link")
    with single_compute_thread():
        pin(cores()[1])
        link = measure_link(lambda pace: Link(pace).copy, effort.repeats)
    progress("compute")
    compute, handover = measure_compute(model, stores["raw", 0.0], effort)
    codecs = []
    for (codec, bound), store in stores.items():
        progress(f"{codec} {bound:g}" if bound else codec)
        codecs.append(_codec(model, store, effort))
    shape = stores["raw", 0.0].shape
    facts = ModelFacts(
        name=name,
        layers=shape.layers,
        experts=shape.experts,
        top_k=top_k,
        hidden=shape.hidden,
        width=shape.width,
        dtype_bytes=shape.dtype_bytes,
    )
    return Calibration(
        machine=this_machine(),
        model=facts,
        link=link,
        compute=compute,
        handover=handover,
        codecs=codecs,
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


def measure_compute(
    model: PreTrainedModel, raw: ExpertStore, effort: Effort
) -> tuple[ComputeFigures, HandoverFigures]:
    """Compute from a run with every expert resident; hand-overs and cooling from runs with none."""
    asked = prompts(effort.requests + 2, SEED)
    resident = run_offloaded(model, raw, Policy(slots=raw.shape.experts), asked, effort.tokens)
    warm = 2 * effort.tokens  # the first two requests fill the slots
    times = resident.times[warm:]
    missing = []
    for seconds in MISS_SECONDS:
        pace = raw.shape.bytes / seconds
        run = run_offloaded(model, raw, Policy(slots=0), asked[:2], effort.tokens, pace)
        missing.append((run.record, run.times))
    half = Policy(slots=raw.shape.experts // 2)
    run = run_offloaded(model, raw, half, asked, effort.tokens, raw.shape.bytes / HALVED_SECONDS)
    nothing = figure(list(asking_nothing(times))).value
    handover = handover_figures(missing, nothing)
    submit = handover.submit_s.value
    return compute_figures(times, missing, (run.record, run.times), submit), handover


def resident_layer_s(
    model: PreTrainedModel, store: ExpertStore, asked: Sequence[Sequence[int]]
) -> float:
    """Compute of one layer and token with every expert resident, s: a short measurement.

    Args:
        model: whose experts are in the store.
        store: under any codec.
        asked: prompts; the last is run twice, first to fill the slots.
    """
    policy = Policy(codec=store.codec.name, bound=store.bound, slots=store.shape.experts)
    tokens = 16
    run = run_offloaded(model, store, policy, [asked[-1]] * 2, tokens)
    layers = [layer for step in run.times[tokens + 1 :] for layer in pairwise(step.layers)]
    return figure([after.enter - before.enter for before, after in layers]).value


def _codec(model: PreTrainedModel, store: ExpertStore, effort: Effort) -> CodecFigures:
    shape, codec = store.shape, store.codec
    places = [(layer, e) for e in range(shape.experts) for layer in range(shape.layers)]
    places = places[: effort.experts]
    stage: Stage = "host decode" if codec.placement == "host" else "device decode"
    weights = [
        matrix.to(torch.bfloat16)
        for matrix in matrices_of(expert_modules(model)[places[0][0]], places[0][1])
    ]
    pipeline = Pipeline(store, Link(shape.bytes / DECODE_SECONDS))
    try:
        with single_compute_thread():
            encode_samples = timed(
                lambda: [encode(w, codec, store.bound) for w in weights], effort.repeats
            )
            slot = torch.empty(shape.values)
            alone, unpack = _decode_alone(pipeline, places, slot, stage)
    finally:
        pipeline.close()
    with single_compute_thread():
        compute_slowdown, decode_slowdown = _side_by_side(store, places, slot)
    blobs = [blob for row in store.blobs for expert in row for blob in expert.blobs]
    return CodecFigures(
        codec=codec.name,
        options=codec.options(),
        bound=store.bound,
        placement=codec.placement,
        blob_bytes=[[blob.nbytes for blob in row] for row in store.blobs],
        ratio=store.ratio,
        largest_error=store.largest_error,
        fallbacks=sum(blob.header.codec != codec.name for blob in blobs),
        encode_s=figure(encode_samples),
        decode_s=figure(alone),
        unpack_s=figure(unpack) if codec.placement == "host" else None,
        compute_slowdown=compute_slowdown,
        decode_slowdown=decode_slowdown,
    )


def _decode_alone(
    pipeline: Pipeline, places: Sequence[tuple[int, int]], slot: torch.Tensor, stage: Stage
) -> tuple[list[float], list[float]]:
    """Seconds of the decoding stage and of the last one, one load at a time, compute idle."""
    decode, last = [], []
    for number, (layer, expert) in enumerate([*places[:3], *places]):
        load = pipeline.ask(layer, expert, slot)
        pipeline.wait()
        if number >= 3:
            spans = {span.stage: span.end - span.start for span in load.spans}
            decode.append(spans[stage])
            last.append(spans["device decode"])
    return decode, last


def _side_by_side(
    store: ExpertStore, places: Sequence[tuple[int, int]], slot: torch.Tensor
) -> tuple[float, float]:
    """By how much decoding slows compute, and compute decoding: both >= 1.

    A worker decodes one expert after the other on its own core, first while compute is idle and
    then while it runs an expert again and again.
    """
    shape, on_host = store.shape, store.codec.placement == "host"
    blobs = [store.blobs[layer][expert] for layer, expert in places]
    decoded: list[float] = []
    finished = threading.Event()

    def decode_all(_: object, start: float) -> None:
        for blob in blobs:
            if on_host:
                for number in range(len(blob.blobs)):
                    blob.decoded(number)
            else:
                unpack(blob, blob.payloads(), slot, decoded=False)
            end = time.perf_counter()
            decoded.append(end - start)
            start = end
        finished.set()

    expert = ExpertWeights.over(torch.randn(shape.values) * 0.02, shape)
    hidden = torch.randn(1, shape.hidden)
    worker = Worker("decode beside compute", decode_all, lambda _, error: finished.set())
    with torch.inference_mode():
        worker.put("alone")
        finished.wait()
        decode_alone, decoded = decoded, []
        finished.clear()
        compute_alone = timed(lambda: expert(hidden), 300, warm_up=20)
        worker.put("beside compute")
        compute_beside = []
        while not finished.is_set():
            compute_beside += timed(lambda: expert(hidden), 1, warm_up=0)
    worker.stop()
    return slowdown(compute_alone, compute_beside), slowdown(decode_alone, decoded)
