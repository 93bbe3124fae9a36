"""The whole study on the embedded model: calibrate, record, simulate, run, check, accuracy."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from offsim import __version__
from offsim.accuracy import accuracy
from offsim.calibration.curve import curve
from offsim.calibration.schema import Calibration
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.files import replacing, write_json, write_yaml
from offsim.model.experts import expert_modules
from offsim.policy.decider import live_decider
from offsim.policy.policy import Policy
from offsim.policy.prefetchers.registry import lookahead
from offsim.runtime.devices import CPU, Device
from offsim.runtime.store import ExpertStore
from offsim.study.breakdown import breakdown
from offsim.study.calibrate import Calibrator, Effort, calibrate, this_machine
from offsim.study.check import Checker, comparison, summary
from offsim.study.decoders import DecoderSampler
from offsim.study.plan import FULL_PLAN, STORAGES, Plan, Progress, part
from offsim.study.prepare import Key, Recorded, under
from offsim.study.reference import MIXTRAL_PCIE4, layer_s, pace
from offsim.study.subject import ModelSubject, Request, Subject
from offsim.study.tables import codec_table, compute_table, link_table
from offsim.study.uncertain import REPLICATES
from offsim.testbed.load import load
from offsim.testbed.scores import prose_bits
from offsim.trace import Trace, save_trace
from offsim.trace.statistics import use_table

MODEL = "offsim-embedded-qwen3-moe"
CURVE_BOUNDS = tuple(2.0**power for power in range(-11, -3))
CURVE_WEIGHTS = 1 << 20
CURVE_CODECS = ("cuszp", "sz3", "lossless", "rtn-int8", "rtn-int4")
"""Bounds and codecs of the rate curve, and how many weights of the down matrices it is measured
on."""
SEED = 5
"""Of the prompts that are checked; calibration runs others."""


def study(
    out: Path, plan: Plan = FULL_PLAN, progress: Progress = lambda *_: None
) -> dict[str, object]:
    """Do everything and leave it in a folder.

    Args:
        out: folder for calibration.yaml, trace files, CSV tables and summary.json.
        plan: how much is done.
        progress: for a display.

    Returns:
        What is in summary.json.
    """
    started = time.perf_counter()
    progress("loading the embedded model", 0.0)
    subject = embedded()
    model = subject.model
    stores = compressed(subject, STORAGES, part(progress, 0.01, 0.06))
    asked = subject.checked(plan.requests, SEED)
    recordings = recorded_under(subject, stores, asked, plan.tokens, part(progress, 0.06, 0.1))
    for key, recording in recordings.items():
        save_trace(recording.trace, out / "traces" / f"{key[0]}-{key[1]:g}.safetensors")
    calibrator = Calibrator(subject, stores, plan.effort)
    progress("calibrating for the first time", 0.1)
    calibrator.round()
    link = pace(calibrator.result())
    checker = Checker(subject, plan.scenarios(list(stores), link), stores, asked, plan.tokens)
    # A shared machine drifts, so the rounds of the calibration lie between those of the runs.
    for number in range(plan.repeats):
        share = 0.15 + 0.6 * number / plan.repeats
        progress(f"calibrating again, {number + 1} of {plan.repeats}", share)
        calibrator.round()
        checker.repeat(part(progress, share, share + 0.6 / plan.repeats))
    calibration = calibrator.result(REPLICATES)
    write_yaml(out / "calibration.yaml", calibration)
    checked = checker.compare(recordings, calibration)
    progress("measuring the codecs over a ladder of bounds", 0.75)
    tables = {"curve": rate_curve(model)}
    tables |= {
        "check": comparison(checked),
        "breakdown": breakdown(checked),
        "accuracy": accuracies(model, stores, plan.items, part(progress, 0.77, 1.0)),
        "codecs": codec_table(calibration),
        "compute": compute_table(calibration),
        "link": link_table(calibration),
        "usage": use_table(recordings["raw", 0.0].trace),
    }
    facts = {
        **_facts(tables["check"], link, calibration, plan),
        "items_a_task": plan.items,
        "every_expert_within_its_bound": all(s.largest_error <= s.bound for s in stores.values()),
        "seconds": time.perf_counter() - started,
    }
    _write(out, tables, facts)
    return facts


def embedded(device: Device = CPU) -> ModelSubject:
    """The embedded model, on a device."""
    return ModelSubject(load(), MODEL, device)


def calibrate_alone(
    keys: Sequence[Key],
    effort: Effort,
    progress: Progress,
    subject: Subject[Any] | None = None,
    device: Device = CPU,
    folder: Path | None = None,
) -> Calibration:
    """Calibrate this machine for these codecs and bounds.

    A device other than the CPU is measured with all decoders that can be had there.

    Args:
        keys: codecs and bounds; one is raw.
        effort: how much is measured in a round.
        progress: for a display.
        subject: what is run, on its device; the embedded model by default.
        device: that computes the embedded model.
        folder: as for `Calibrator`.
    """
    subject, decoders = subject or embedded(device), None
    stores = compressed(subject, keys, part(progress, 0.05, 0.3))
    if subject.device.name != CPU.name:
        decoders = DecoderSampler(subject.device, subject.matrices(), stores)
    return calibrate(subject, stores, effort, part(progress, 0.3, 1.0), decoders, folder)


def check_alone(
    calibration: Calibration,
    plan: Plan,
    out: Path,
    progress: Progress,
    like: Policy | None = None,
    profile: Trace | None = None,
    subject: Subject[Any] | None = None,
    device: Device = CPU,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Check a calibration of this machine on the model that it is of; tables go into a folder.

    Args:
        calibration: its codecs and bounds are checked.
        plan: cache sizes, link speeds and how much is run.
        out: folder.
        progress: for a display.
        like: what else the policies are, such as their prefetcher; as a policy is by default.
        profile: a trace that the policies may learn from.
        subject: what is run, on its device; the embedded model by default.
        device: that computes the embedded model.

    Raises:
        InputError: the calibration is of another model or was measured on another kind of device,
            a codec of its is not known here, or no live run can have such a policy.
    """
    base, known = like or Policy(), calibration.model
    # Refuses an oracle, or what lacks a profile, before any work.
    live_decider(base, (known.layers, known.experts, known.top_k), lambda _: 0, profile)
    name = MODEL if subject is None else subject.facts.name
    if known.name != name or (subject is not None and known != subject.facts):
        raise InputError(f"the calibration is of {known.name}; this check runs {name}")
    _check_device(calibration, device if subject is None else subject.device)
    ahead = lookahead(base.prefetch, base.distance)
    subject = subject or embedded(device)
    keys = [(figures.codec, figures.bound) for figures in calibration.codecs]
    stores = compressed(subject, keys, part(progress, 0.02, 0.1))
    asked = subject.checked(plan.requests, SEED)
    recordings = recorded_under(
        subject, stores, asked, plan.tokens, part(progress, 0.1, 0.2), ahead
    )
    link = pace(calibration)
    scenarios = plan.scenarios(keys, link, base)
    checker = Checker(subject, scenarios, stores, asked, plan.tokens, profile)
    for number in range(plan.repeats):
        share = 0.2 + 0.8 * number / plan.repeats
        checker.repeat(part(progress, share, share + 0.8 / plan.repeats))
    checked = checker.compare(recordings, calibration)
    tables = {"check": comparison(checked), "breakdown": breakdown(checked)}
    facts = _facts(tables["check"], link, calibration, plan)
    _write(out, tables, facts)
    return tables["check"], facts


def _check_device(calibration: Calibration, device: Device) -> None:
    """Refuse to hold runs on a device against what was measured on another kind of device.

    Raises:
        InputError: one is the CPU and the other is not.
    """
    there = "the CPU" if calibration.device is None else calibration.device.name
    if calibration.measured and (calibration.device is None) != (device.name == CPU.name):
        raise InputError(
            f"the calibration was measured on {there}, and this check runs on {device}; calibrate "
            f"with --device {device.name}"
        )


def compressed(
    subject: Subject[Any], keys: Sequence[Key], progress: Progress
) -> dict[Key, ExpertStore]:
    """The experts of a model under each codec and bound."""
    stores = {}
    shape = subject.facts
    places = shape.layers * shape.experts
    for number, (codec, bound) in enumerate(keys):
        start, what = number / len(keys), f"compressing with {codec} {bound:g}"
        tell = by_place(part(progress, start, start + 1 / len(keys)), what, places)
        stores[codec, bound] = subject.store(codec_named(codec), bound, tell)
    return stores


def by_place(progress: Progress, what: str, places: int) -> Callable[[], None]:
    """A display that is told of each of so many places when it is done."""
    progress(what, 0.0)
    done = iter(range(1, places + 1))
    return lambda: progress(what, next(done) / places)


def recorded_under(
    subject: Subject[Request],
    stores: Mapping[Key, ExpertStore],
    asked: Sequence[Request],
    tokens: int,
    progress: Progress,
    lookahead: int = 0,
) -> dict[Key, Recorded]:
    """The model's router and answers under each codec and bound, and its gates asked ahead."""
    recordings = {}
    for number, (key, store) in enumerate(stores.items()):
        progress(f"recording the router under {key[0]} {key[1]:g}", number / len(stores))
        recordings[key] = subject.recorded(store, asked, tokens, lookahead)
    return recordings


def rate_curve(model: PreTrainedModel) -> pd.DataFrame:
    """Size, error and speed of the codecs over a ladder of bounds, on the down matrices."""
    downs = torch.cat([module.down_proj.detach().flatten() for module in expert_modules(model)])
    codecs = [codec_named(name) for name in CURVE_CODECS]
    bounds = [Bound(value) for value in CURVE_BOUNDS]
    points = curve(downs[:CURVE_WEIGHTS].bfloat16(), codecs, bounds)
    return pd.DataFrame([asdict(point) for point in points])


def accuracies(
    model: PreTrainedModel, stores: Mapping[Key, ExpertStore], items: int, progress: Progress
) -> pd.DataFrame:
    """Rows of codec, bound, task and accuracy; task `prose` has bits a character instead."""
    rows: list[dict[str, object]] = []
    for number, ((codec, bound), store) in enumerate(stores.items()):
        progress(f"accuracy under {codec} {bound:g}", number / len(stores))
        lossy = under(model, store)
        named = {"codec": codec, "bound": bound}
        rows += [{**named, **asdict(one)} for one in accuracy(lossy, items)]
        rows.append({**named, "task": "prose", "bits_a_character": prose_bits(lossy)})
    return pd.DataFrame(rows)


def _facts(
    compared: pd.DataFrame, link: float, calibration: Calibration, plan: Plan
) -> dict[str, object]:
    transfer = calibration.model.expert_bytes / link
    return {
        **summary(compared),
        "offsim": __version__,
        "model": calibration.model.name,
        "predictions": "SIMULATED" if calibration.measured else "ESTIMATED",
        "machine": this_machine().model_dump(mode="json"),
        "link_bytes_per_s": link,
        "link_imitates": MIXTRAL_PCIE4.name,
        "transfer_to_compute": transfer / layer_s(calibration),
        "transfer_to_compute_imitated": MIXTRAL_PCIE4.ratio,
        "link_slowed_by": MIXTRAL_PCIE4.link_bytes_per_s / link,
        "requests": plan.requests,
        "tokens_a_request": plan.tokens,
        "repeats": plan.repeats,
    }


def _write(out: Path, tables: Mapping[str, pd.DataFrame], facts: dict[str, object]) -> None:
    for name, table in tables.items():
        with replacing(out / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    write_json(out / "summary.json", facts)
