"""Whether offsim works on this machine and device, in one go: codecs, the loop, a short check."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from offsim import __version__
from offsim.codec import Blob, codec_named
from offsim.codec.cuszp import encode_stream
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.codec.golden import BOUND, GOLDEN, INPUTS, Golden, sha256
from offsim.codec.registry import codec_names
from offsim.errors import InputError, OffsimError
from offsim.files import check_writable, write_json, write_text
from offsim.model.generate import greedy_tokens
from offsim.runtime.devices import CPU, Device
from offsim.simulate import simulate
from offsim.study.calibrate import Effort, calibrate, this_machine
from offsim.study.check import Checker, Scenario, comparison, summary
from offsim.study.plan import Progress, part
from offsim.study.prepare import Key
from offsim.study.reference import pace
from offsim.study.study import SEED, compressed, embedded, recorded_under
from offsim.study.subject import ModelSubject

STORAGES: tuple[Key, ...] = (("raw", 0.0), ("cuszp", 2.0**-5), ("sz3", 2.0**-5))
"""Codecs and bounds of the short check: without one, decoded on the device, decoded on the host."""
EFFORT = Effort(rounds=2, requests=2, tokens=8, repeats=3)
REQUESTS, TOKENS, REPEATS, SLOTS = 2, 8, 2, 4
WEIGHTS, WEIGHTS_BOUND, WEIGHTS_SEED = (64, 96), 2.0**-9, 3
"""Shape of each matrix that the codecs are tried on, N(0, 0.02) in bf16; their bound and seed."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One thing that was tried.

    Attributes:
        name: what.
        passed: whether it is as it should be.
        found: what was seen, in a sentence.
        seconds: that it took.
    """

    name: str
    passed: bool
    found: str
    seconds: float


@dataclass(frozen=True)
class SelfTest:
    """What a self test found.

    Attributes:
        device: what computed, for people.
        tried: in order.
        comparison: a row a policy of the short check: SIMULATED, MEASURED, errors.
        facts: versions, machine, errors in a few numbers.
    """

    device: str
    tried: list[Tried]
    comparison: pd.DataFrame
    facts: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether everything is as it should be; errors of times are shown and not judged."""
        return all(one.passed for one in self.tried)

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "version": 1,
            "passed": self.passed,
            "device": self.device,
            "tried": [asdict(one) for one in self.tried],
            "policies": self.comparison.to_dict("records"),
            **self.facts,
        }

    def to_text(self) -> str:
        """All of it, for people."""
        lines = [f"offsim {__version__} self test on {self.device}", ""]
        lines += [f"{key}: {value}" for key, value in self.facts["machine"].items()]
        lines += ["", "TRIED"]
        for one in self.tried:
            verdict = "passed" if one.passed else "FAILED"
            lines.append(f"{verdict}  {one.name} ({one.seconds:.1f} s): {one.found}")
        lines += [
            "",
            "TIME PER TOKEN OF THE SHORT CHECK (few runs on a machine that was not quiet)",
        ]
        for row in self.comparison.to_dict("records"):
            lines.append(
                f"{row['codec']} {row['bound']:g}, {row['slots']} slots, "
                f"{row['link_MB_per_s']:.0f} MB/s: SIMULATED {row['tpot_simulated'] * 1e3:.2f} ms, "
                f"MEASURED {row['tpot_measured'] * 1e3:.2f} ms, error {row['tpot_error']:+.1%}"
            )
        return "\n".join([*lines, "", "PASSED" if self.passed else "FAILED", ""])


def selftest(
    device: Device = CPU,
    out: Path | None = None,
    progress: Progress = lambda *_: None,
    subject: ModelSubject | None = None,
) -> SelfTest:
    """Try the codecs, the loop and a short check on a device.

    Args:
        device: that decodes and computes.
        out: folder for selftest.json and selftest.txt; None for neither.
        progress: for a display.
        subject: what runs, on that device; the embedded model by default.

    Raises:
        InputError: the folder cannot be written.
    """
    if out is not None:
        check_writable(out)
    tried = [_timed(trial) for trial in _codec_trials(device, part(progress, 0.0, 0.1))]
    progress("loading the model", 0.1)
    subject = subject or ModelSubject(embedded().model, embedded().name, device)
    try:
        looped, compared = _loop_and_check(subject, part(progress, 0.12, 1.0))
    except OffsimError as error:
        looped, compared = [Tried("loop and short check", False, str(error), 0.0)], pd.DataFrame()
    facts = {
        "machine": this_machine().model_dump(mode="json"),
        "short_check": None if compared.empty else summary(compared),
        "label": "MEASURED",
    }
    result = SelfTest(str(device), [*tried, *looped], compared, facts)
    if out is not None:
        write_json(out / "selftest.json", _written(result.to_json()))
        write_text(out / "selftest.txt", result.to_text())
    return result


@dataclass(frozen=True, slots=True)
class _Trial:
    """Something to try: gives what was found, and whether it is as it should be."""

    name: str
    run: Callable[[], tuple[bool, str]]


def _timed(trial: _Trial) -> Tried:
    start = time.perf_counter()
    try:
        passed, found = trial.run()
    except Exception as error:  # whatever a device does that nobody has tried
        passed, found = False, f"{type(error).__name__}: {error}"
    return Tried(trial.name, passed, found, time.perf_counter() - start)


def _codec_trials(device: Device, progress: Progress) -> Iterator[_Trial]:
    """The official streams, then every codec that works here."""
    names = codec_names()
    for number, golden in enumerate(GOLDEN):
        name = f"cuszp {golden.mode}, {golden.values}"
        progress(f"decoding the official stream of {name}", number / (len(GOLDEN) + len(names)))
        yield _Trial(name, lambda golden=golden: _golden(golden, device))  # type: ignore[misc]
    for number, name in enumerate(names, len(GOLDEN)):
        progress(f"trying the codec {name}", number / (len(GOLDEN) + len(names)))
        yield _Trial(f"codec {name}", lambda name=name: _codec(name, device))  # type: ignore[misc]


def _golden(golden: Golden, device: Device) -> tuple[bool, str]:
    """The host makes the stream of the official library, and the device its values."""
    make, checksum = INPUTS[golden.values]
    values = make()
    if sha256(values.tobytes()) != checksum:
        return False, "this machine makes another input"
    stream = encode_stream(values, BOUND, golden.mode)
    if sha256(stream) != golden.stream:
        return False, "another stream than that of the official library"
    blob = Blob.of(
        bytes(stream),
        codec="cuszp",
        options={"mode": golden.mode},
        dtype="f32",
        shape=values.shape,
        bound=BOUND,
        codec_bound=BOUND,
    )
    decoded = _through(ExpertBlob((blob,)), device)
    same = sha256(decoded.cpu().numpy().tobytes()) == golden.decoded
    return same, f"stream official, values on the device {'official' if same else 'DIFFERENT'}"


def _codec(name: str, device: Device) -> tuple[bool, str]:
    """Weights go to the device as in a run, and arrive as the codec promises."""
    try:
        codec = codec_named(name)
        device.check(codec)
    except InputError as error:
        return True, f"left out: {error}"
    drawn = torch.Generator().manual_seed(WEIGHTS_SEED)
    weights = [(torch.randn(WEIGHTS, generator=drawn) * 0.02).bfloat16() for _ in range(3)]
    blob = encode_expert(weights, codec, WEIGHTS_BOUND)
    there = _through(blob, device, decoded=codec.placement == "host").cpu()
    here = torch.cat([blob.decoded(number).view(-1).float() for number in range(3)])
    largest = float((there - torch.cat([one.view(-1) for one in weights]).float()).abs().max())
    bound = {"exact": 0.0, "bound": WEIGHTS_BOUND, "none": float("inf")}[codec.promise]
    passed = torch.equal(there, here) and largest <= bound
    return passed, f"largest error {largest:.3g} in bf16, allowed {bound:.3g}"


def _through(blob: ExpertBlob, device: Device, *, decoded: bool = False) -> torch.Tensor:
    """An expert as it is on the device after link and decoder, [values] float32."""
    parts = blob.payloads()
    if decoded:
        matrices = [blob.decoded(number).view(-1) for number in range(len(blob.blobs))]
        parts = [weights.view(torch.uint8).numpy() for weights in matrices]
    slot = device.slots(1, sum(matrix.count for matrix in blob.blobs))[0]
    arrived, _ = device.link(None).carry(parts)
    device.unpack(blob, arrived, slot, decoded=decoded)
    return slot


def _loop_and_check(subject: ModelSubject, progress: Progress) -> tuple[list[Tried], pd.DataFrame]:
    """Calibrate in short; hold runs against the plain model and against their simulations."""
    stores = compressed(subject, STORAGES, part(progress, 0.0, 0.1))
    asked = subject.checked(REQUESTS, SEED)
    recordings = recorded_under(subject, stores, asked, TOKENS, part(progress, 0.1, 0.15), 1)
    start = time.perf_counter()
    calibration = calibrate(subject, stores, EFFORT, part(progress, 0.15, 0.6))
    calibrated = f"{len(STORAGES)} codecs and bounds in {EFFORT.rounds} rounds, MEASURED"
    tried = [Tried("calibration", True, calibrated, time.perf_counter() - start)]
    link = pace(calibration)

    def plain_tokens() -> tuple[bool, str]:
        with subject.device.hosting(subject.model, experts=True):
            plain = [greedy_tokens(subject.model, prompt, TOKENS) for prompt in asked]
        store = stores["raw", 0.0]
        policy = store.policy(slots=SLOTS // 2, prefetch="gate")
        run = subject.run(store, policy, asked, TOKENS, link)
        simulated = simulate(recordings["raw", 0.0].trace, policy, calibration, link)
        tokens = run.tokens == plain
        decisions = run.record.decisions() == simulated.decisions()
        found = f"tokens {_equal(tokens)}, decisions {_equal(decisions)}, gates asked ahead"
        return tokens and decisions, found

    progress("offloading the experts", 0.6)
    tried.append(_timed(_Trial("loop without error", plain_tokens)))
    scenarios = [Scenario(store.policy(slots=SLOTS), link) for store in stores.values()]
    checker = Checker(subject, scenarios, stores, asked, TOKENS)
    start = time.perf_counter()
    for number in range(REPEATS):
        share = 0.65 + 0.35 * number / REPEATS
        checker.repeat(part(progress, share, share + 0.35 / REPEATS))
    table = comparison(checker.compare(recordings, calibration))
    tried += _compared(table, time.perf_counter() - start)
    return tried, table


def _compared(table: pd.DataFrame, seconds: float) -> Iterator[Tried]:
    """A row a policy; the time is that of all together."""
    for row in table.to_dict("records"):
        same = {
            "decisions": row["decisions_equal"],
            "tokens": row["tokens_equal"],
            "bytes": row["bytes_simulated"] == row["bytes_measured"],
        }
        found = ", ".join(f"{name} {_equal(bool(one))}" for name, one in same.items())
        name = f"policy {row['codec']} {row['bound']:g}"
        yield Tried(name, all(same.values()), found, seconds / len(table))


def _equal(same: bool) -> str:
    return "equal" if same else "DIFFERENT"


def _written(value: Any) -> Any:
    """As JSON has it: no NaN, and none of numpy's own numbers."""
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_written(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
