"""The metrics of a run, defined once for simulated and measured ones (docs/model.md)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.record.events import STAGES, Label, RunRecord, Wait
from offsim.record.table import PS, Ints, StepTable, table_of


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a run took.

    Attributes:
        label: MEASURED, SIMULATED or ESTIMATED.
        requests: how many.
        output_tokens: over all requests.
        ttft_s: mean over requests of the time from its arrival, or its start where it waits for
            nobody, to its first token, the end of its prompt pass.
        ttft_p50_s: median over requests of the same; p95 and p99 likewise.
        ttft_p95_s: see there.
        ttft_p99_s: see there.
        tpot_s: mean over requests of (last token - first token) / (output tokens - 1).
        itl_p50_s: median time between output tokens; p95 and p99 likewise.
        itl_p95_s: see there.
        itl_p99_s: see there.
        tokens_per_s: output tokens over the makespan.
        lookups: distinct experts asked for.
        hit_rate: share of lookups that were resident, 0..1.
        hit_rate_decode: of the decode steps alone.
        late_rate: share of lookups that a prefetch was still bringing, 0..1: neither hit nor miss.
        again_rate: share of lookups that found a blob on the device and decoded it again, 0..1;
            they count as hits.
        link_bytes: bytes asked for over the link.
        prefetch_bytes: of these, what was fetched ahead.
        wasted_bytes: of those, what was not asked for before it had to leave.
        disk_bytes: bytes read from disk.
        prefill_s: mean time of a prompt pass: compute and stall together.
        decode_compute_s: mean time of a decode step that is not stall.
        decode_stall_s: mean stall of a decode step, by the stage that was waited on;
            `hand-over` is what passes between a load's end and compute going on.
    """

    label: Label
    requests: int
    output_tokens: int
    ttft_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    tpot_s: float
    itl_p50_s: float
    itl_p95_s: float
    itl_p99_s: float
    tokens_per_s: float
    lookups: int
    hit_rate: float
    hit_rate_decode: float
    late_rate: float
    again_rate: float
    link_bytes: int
    prefetch_bytes: int
    wasted_bytes: int
    disk_bytes: int
    prefill_s: float
    decode_compute_s: float
    decode_stall_s: dict[str, float]


def metrics_of(record: RunRecord) -> Metrics:
    """Metrics of a run.

    What is not defined is NaN: TPOT and ITL where no request has two output tokens, means over no
    prompt pass or no decode step, hit rates of no lookups.

    Raises:
        ValueError: the record has no step.
    """
    return metrics_of_table(table_of(record), record.label)


def metrics_of_table(table: StepTable, label: Label) -> Metrics:
    """The same, of a run as a table with at least one step."""
    order = np.lexsort((table.emit_step, table.emit_request))
    request, token_end = table.emit_request[order], table.end[table.emit_step[order]]
    same = request[1:] == request[:-1]
    gaps = np.diff(token_end)[same] / PS
    first = np.flatnonzero(np.append(True, ~same)[: len(request)])
    last = np.append(first[1:], len(request)) - 1
    ttft = (token_end[first] - table.arrival[request[first]]) / PS
    several = last > first
    tpot = (token_end[last] - token_end[first])[several] / (last - first)[several] / PS
    spent = (table.end - table.start) / PS
    decode = table.decode
    waited = np.ascontiguousarray(table.stall[decode].T) / PS
    stall = {
        name: _mean(seconds) if len(seconds) else 0.0
        for name, seconds in zip((*STAGES, "hand-over"), waited, strict=True)
    }
    makespan = int(table.end[-1] - table.start[0]) / PS
    first_p50, first_p95, first_p99 = _percentiles(ttft)
    p50, p95, p99 = _percentiles(gaps)
    prefetch_bytes = int(table.prefetch_bytes.sum())
    return Metrics(
        label=label,
        requests=len(first),
        output_tokens=len(request),
        ttft_s=_mean(ttft),
        ttft_p50_s=first_p50,
        ttft_p95_s=first_p95,
        ttft_p99_s=first_p99,
        tpot_s=_mean(tpot),
        itl_p50_s=p50,
        itl_p95_s=p95,
        itl_p99_s=p99,
        tokens_per_s=len(request) / makespan if makespan else np.inf,
        lookups=int(table.lookups.sum()),
        hit_rate=_share(table.hits, table.lookups),
        hit_rate_decode=_share(table.hits[decode], table.lookups[decode]),
        late_rate=_share(table.late, table.lookups),
        again_rate=_share(table.again, table.lookups),
        link_bytes=int(table.demand_bytes.sum()) + prefetch_bytes,
        prefetch_bytes=prefetch_bytes,
        wasted_bytes=int(table.wasted_bytes.sum()),
        disk_bytes=int(table.disk_bytes.sum()),
        prefill_s=_mean(spent[~decode]),
        decode_compute_s=_mean(spent[decode]) - sum(stall.values()),
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


def _mean(seconds: npt.NDArray[np.float64]) -> float:
    return float(np.mean(seconds)) if len(seconds) else np.nan


def _percentiles(seconds: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The median, p95 and p99."""
    if not len(seconds):
        return np.nan, np.nan, np.nan
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return p50, p95, p99


def _share(part: Ints, whole: Ints) -> float:
    return int(part.sum()) / int(whole.sum()) if whole.sum() else np.nan
