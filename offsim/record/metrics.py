"""The metrics of a run, defined once for simulated and measured ones (docs/model.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from offsim.record.events import STAGES, Label, RunRecord, StepRecord, Wait
from offsim.trace.format import DECODE, PREFILL


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a run took.

    Attributes:
        label: MEASURED, SIMULATED or ESTIMATED.
        requests: how many.
        output_tokens: over all requests.
        ttft_s: mean over requests of the time from its start to its first token, the end of its
            prompt pass.
        tpot_s: mean over requests of (last token - first token) / (output tokens - 1).
        itl_p50_s: median time between output tokens; p95 and p99 likewise.
        itl_p95_s: see there.
        itl_p99_s: see there.
        tokens_per_s: output tokens over the makespan.
        lookups: distinct experts asked for.
        hit_rate: share of lookups that were resident, 0..1.
        hit_rate_decode: of the decode steps alone.
        link_bytes: bytes over the link.
        prefill_s: mean time of a prompt pass: compute and stall together.
        decode_compute_s: mean time of a decode step that is not stall.
        decode_stall_s: mean stall of a decode step, by the stage that was waited on;
            `hand-over` is what passes between a load's end and compute going on.
    """

    label: Label
    requests: int
    output_tokens: int
    ttft_s: float
    tpot_s: float
    itl_p50_s: float
    itl_p95_s: float
    itl_p99_s: float
    tokens_per_s: float
    lookups: int
    hit_rate: float
    hit_rate_decode: float
    link_bytes: int
    prefill_s: float
    decode_compute_s: float
    decode_stall_s: dict[str, float]


def metrics_of(record: RunRecord) -> Metrics:
    """Metrics of a run in which requests are served one after the other.

    What is not defined is NaN: TPOT and ITL where no request has two output tokens, means over no
    prompt pass or no decode step, hit rates of no lookups.

    Raises:
        ValueError: the record has no step.
    """
    if not record.steps:
        raise ValueError("a record without a step has no metrics")
    requests: dict[int, list[StepRecord]] = {}
    for step in record.steps:
        requests.setdefault(step.request, []).append(step)
    gaps = [b.end - a.end for steps in requests.values() for a, b in pairwise(steps)]
    ttft = [steps[0].end - steps[0].start for steps in requests.values()]
    tpot = [
        (steps[-1].end - steps[0].end) / (len(steps) - 1)
        for steps in requests.values()
        if len(steps) > 1
    ]
    decode_steps = [step for step in record.steps if step.phase == DECODE]
    stall = dict.fromkeys((*STAGES, "hand-over"), 0.0)
    for step in decode_steps:
        for wait in step.waits:
            for stage, seconds in split_wait(wait).items():
                stall[stage] += seconds / len(decode_steps)
    hits, lookups = _hits(record.steps)
    hits_decode, lookups_decode = _hits(decode_steps)
    p50, p95, p99 = np.percentile(gaps, (50, 95, 99)) if gaps else (np.nan,) * 3
    makespan = record.steps[-1].end - record.steps[0].start
    return Metrics(
        label=record.label,
        requests=len(requests),
        output_tokens=len(record.steps),
        ttft_s=_mean(ttft),
        tpot_s=_mean(tpot),
        itl_p50_s=float(p50),
        itl_p95_s=float(p95),
        itl_p99_s=float(p99),
        tokens_per_s=len(record.steps) / makespan if makespan else np.inf,
        lookups=lookups,
        hit_rate=hits / lookups if lookups else np.nan,
        hit_rate_decode=hits_decode / lookups_decode if lookups_decode else np.nan,
        link_bytes=sum(load.link_bytes for step in record.steps for load in step.loads),
        prefill_s=_mean([s.end - s.start for s in record.steps if s.phase == PREFILL]),
        decode_compute_s=_mean([s.end - s.start for s in decode_steps]) - sum(stall.values()),
        decode_stall_s=stall,
    )


def split_wait(wait: Wait) -> dict[str, float]:
    """Seconds of a wait by the stage that its load was in or queued for."""
    parts: dict[str, float] = {}
    since = wait.start
    for span in wait.load.spans:
        until = min(max(span.end, since), wait.end)
        parts[span.stage] = until - since
        since = until
    parts["hand-over"] = wait.end - since
    return parts


def _mean(seconds: Sequence[float]) -> float:
    return float(np.mean(seconds)) if seconds else np.nan


def _hits(steps: list[StepRecord]) -> tuple[int, int]:
    hits = sum(len(d.hits) for step in steps for d in step.decisions)
    return hits, hits + sum(len(d.misses) for step in steps for d in step.decisions)
