"""Tables of the report: cells of text made of the numbers of a study."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from offsim.record.events import Label
from offsim.report.data import StudyData
from offsim.report.figures import NEAR, banded
from offsim.report.findings import best_by_link, mean_ica
from offsim.report.heatmaps import PROSE, storages_of
from offsim.report.text import (
    NOTHING,
    bound_text,
    link_text,
    megabytes,
    milliseconds,
    number,
    percent,
    policies,
    storage_text,
)
from offsim.units import GB, MB, show_bytes

METRICS = {"tpot": "TPOT", "ttft": "TTFT", "itl_p95": "ITL p95", "throughput": "throughput"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, and whether it stands out."""

    text: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page.

    Attributes:
        caption: what it shows, with units.
        labels: where its numbers come from; none for facts.
        head: of each column.
        rows: of cells.
        words: how many columns at the left are words; the others are numbers, flush right.
    """

    caption: str
    labels: Sequence[Label]
    head: list[str]
    rows: list[list[Cell]]
    words: int = 1


def machine_table(data: StudyData) -> Table:
    """The machine and the model."""
    machine, model = data.summary["machine"], data.calibration.model
    facts = {
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "system": machine["system"],
        "measured on": machine["measured_on"],
        "model": data.summary["model"],
        "its experts": f"{model.layers} layers of {model.experts}, {model.top_k} a token",
        "one expert": f"3 matrices of {model.hidden} x {model.width}, "
        f"{show_bytes(model.expert_bytes)} in the stored dtype",
        "workload": f"{data.summary['requests']} requests, "
        f"{data.summary['tokens_a_request']} tokens written for each",
    }
    return _facts("Machine, model and workload", (), facts)


def link_facts(data: StudyData) -> Table:
    """What the paced link is and imitates."""
    summary = data.summary
    facts = {
        "imitates": summary["link_imitates"],
        "one expert on that link over the compute of one layer and token": (
            f"{summary['transfer_to_compute_imitated']:.2f}"
        ),
        "the same ratio here": f"{summary['transfer_to_compute']:.2f} (MEASURED)",
        "at a pace of": link_text(summary["link_bytes_per_s"] / MB),
        "slower than the imitated link": f"{summary['link_slowed_by']:,.0f} times",
    }
    return _facts("The paced link", ("ESTIMATED",), facts)


def handover_table(data: StudyData) -> Table:
    """Calibrated costs of a load besides its stages, ms."""
    figures = data.calibration
    named = {
        "asking for a load": figures.handover.submit_s,
        "from asking to the first stage": figures.handover.start_s,
        "between two stages": figures.handover.between_s,
        "from the last stage to compute": figures.handover.wake_s,
        "paced transfer over its bytes / pace": figures.link.overshoot_s,
    }
    rows = [
        _words(name, *(milliseconds(s, 4) for s in (f.value, f.p10, f.p90)), f"{f.samples:,}")
        for name, f in named.items()
    ]
    head = ["hand-over", "ms", "p10", "p90", "samples"]
    labels: dict[Label, None] = dict.fromkeys(f.label for f in named.values())
    return Table("Hand-overs, ms", list(labels), head, rows)


def copies_table(data: StudyData) -> Table:
    """The sweep of plain copies, ms and GB/s."""
    link = data.calibration.link
    rows = [
        _words(show_bytes(row["bytes"]), number(row["us"] / 1e3, 4), f"{row['GB_per_s']:.1f}")
        for row in data.link.to_dict("records")
    ]
    caption = (
        f"Plain copies; fit {milliseconds(link.latency_s, 4)} ms + bytes / "
        f"{link.bytes_per_s / GB:.1f} GB/s, off by {percent(link.residual)} at most"
    )
    return Table(caption, ("MEASURED",), ["size", "ms", "GB/s"], rows)


def codecs_table(data: StudyData) -> Table:
    """Codecs at the bounds of the policies: sizes of all experts, speeds of some."""
    columns = {
        "ratio": ("ratio_bf16", 2),
        "bits a weight": ("bits_per_weight", 2),
        "raw fallbacks": ("fallbacks", 0),
    }
    speeds = ("encode_MB_per_s", "decode_MB_per_s")
    rows = [
        _words(
            row["codec"],
            row["placement"],
            bound_text(row["bound"]) if row["bound"] else "lossless",
            bound_text(row["largest_error_bf16"]),
            *(number(row[column], decimals) for column, decimals in columns.values()),
            *(megabytes(row[column]) for column in speeds),
            number(row["decode_ms_per_expert"], 3),
            *(f"{row[column]:.2f}" for column in ("decode_slowdown", "compute_slowdown")),
        )
        for row in data.codecs.to_dict("records")
    ]
    head = [
        "codec", "decodes on", "bound", "largest error", *columns, "encode, MB/s", "decode, MB/s",
        "decode, ms an expert", "decode slowed, times", "compute slowed, times",
    ]  # fmt: skip
    caption = "Codecs on the model's experts; slowed: when decoding and compute run side by side"
    return Table(caption, ("MEASURED",), head, rows, words=2)


def usage_table(data: StudyData) -> Table:
    """Statistics of the raw trace by layer."""
    rows = [
        _words(
            f"{row['layer']:g}",
            f"{row['imbalance']:.2f}",
            *(percent(row[c]) for c in ("utilisation", "entropy")),
            f"{row['gini']:.3f}",
            *(percent(row[c]) for c in ("overlap", "chance")),
            *(number(row[c], 1) for c in ("distinct_prefill", "distinct_decode")),
        )
        for row in data.usage.to_dict("records")
    ]
    head = [
        "layer", "most used over mean", "experts used", "entropy of even", "Gini",
        "shared with token before", "by chance", "distinct, prompt pass", "distinct, decode step",
    ]  # fmt: skip
    return Table("Use of experts by layer, raw experts", ("MEASURED",), head, rows)


def best_table(data: StudyData) -> Table:
    """The fastest policies on each link."""
    named, check = policies(data.check), data.check
    rows = []
    for best in best_by_link(check):
        cells = [link_text(best.link), named[best.measured], named[best.simulated]]
        lossy = named[best.lossy] if best.lossy is not None else NOTHING
        times, gain = [NOTHING, NOTHING], NOTHING
        if best.lossy is not None:
            fast = check["tpot_measured"].iloc[best.lossy]
            times[0] = milliseconds(fast)
            if best.rival is not None:
                slow = check["tpot_measured"].iloc[best.rival]
                times[1], gain = milliseconds(slow), f"{slow / fast:.2f}"
        rows.append(_words(*cells, lossy, *times, gain))
    head = [
        "link", "fastest, measured", "fastest, simulated", "fastest with a bound, measured",
        "its TPOT, ms", "lossless with as many slots, ms", "times as fast",
    ]  # fmt: skip
    return Table("Fastest by TPOT on each link", ("MEASURED", "SIMULATED"), head, rows, words=4)


def errors_table(data: StudyData) -> Table:
    """Errors of each metric over all scenarios."""
    check = data.check
    rows = []
    for metric, name in METRICS.items():
        error, spread = check[f"{metric}_error"].abs(), check[f"{metric}_spread"]
        rows.append(
            [
                Cell(name),
                _error(float(error.median()), signed=False),
                _error(float(error.max()), signed=False),
                Cell(f"{int((error <= NEAR).sum())} of {len(check)}"),
                Cell(_covered(check, metric)),
                _spread(data, float(spread.median())),
            ]
        )
    head = [
        "metric", "|error| median", "|error| worst", "within 5 %", "within the 90 % band",
        "spread of runs, median",
    ]  # fmt: skip
    caption = "Predicted against measured, all policies"
    return Table(caption, ("MEASURED", "SIMULATED"), head, rows)


def scenarios_table(data: StudyData) -> Table:
    """Every scenario: predicted, measured, error."""
    rows = []
    for name, row in zip(policies(data.check), data.check.to_dict("records"), strict=True):
        cells = [Cell(name), Cell(megabytes(row["link_MB_per_s"]))]
        cells.append(Cell(percent(row["hit_rate_measured"])))
        for metric in ("tpot", "ttft"):
            cells += [Cell(milliseconds(row[f"{metric}_{of}"])) for of in ("simulated", "measured")]
            cells += [_error(row[f"{metric}_error"]), _band(row, metric)]
        cells += [_error(row[f"{metric}_error"]) for metric in ("itl_p95", "throughput")]
        equal = bool(row["decisions_equal"]) and bool(row["tokens_equal"])
        cells.append(_spread(data, row["tpot_spread"]))
        cells.append(Cell("yes" if equal else "no", marked=not equal))
        rows.append(cells)
    head = ["policy", "link, MB/s", "hit rate"]
    for metric in ("TPOT", "TTFT"):
        head += [f"{metric} simulated, ms", f"{metric} measured, ms", f"{metric} error"]
        head.append(f"{metric} 90 % band, ms")
    head += ["ITL p95 error", "tokens/s error", "TPOT spread", "log equal"]
    caption = (
        "Every policy; spread: range of the runs over their median; "
        "log equal: decisions and tokens as simulated; "
        "marked: |error| > 5 %, measured outside its band"
    )
    return Table(caption, ("MEASURED", "SIMULATED"), head, rows)


def accuracy_table(data: StudyData, score: str) -> Table:
    """A score (`ica` or `pia`) by task and storage with its 95 % intervals, percent."""
    accuracy = data.accuracy
    storages = storages_of(accuracy)
    by_key: dict[tuple[str, float, str], Mapping[Hashable, Any]] = {
        (row["codec"], row["bound"], row["task"]): row for row in accuracy.to_dict("records")
    }
    rows = []
    for task in accuracy.loc[accuracy["task"] != PROSE, "task"].unique():
        found = [by_key.get((*storage, task)) for storage in storages]
        rows.append(_words(task, *(_interval(row, score) for row in found)))
    if score == "ica":
        means = (number(100 * mean_ica(accuracy, *storage), 1) for storage in storages)
        rows.append(_words("mean of the tasks", *means))
        prose = (by_key.get((*storage, PROSE), {}) for storage in storages)
        bits = (number(row.get("bits_a_character", math.nan), 3) for row in prose)
        rows.append(_words("prose, bits a character", *bits))
    head = ["task", *(storage_text(*storage) for storage in storages)]
    what = "right content in the right format" if score == "ica" else "right content"
    caption = f"{score.upper()} ({what}), % with its 95 % interval"
    return Table(caption, ("MEASURED",), head, rows)


def versions_table(data: StudyData) -> Table:
    """Versions of what the study ran with."""
    versions = {"offsim": data.summary["offsim"], **data.summary["machine"]["versions"]}
    return _facts("Versions", (), versions)


def _interval(row: Mapping[Hashable, Any] | None, score: str) -> str:
    if row is None or pd.isna(row[score]):
        return NOTHING
    share, low, high = (100 * row[column] for column in (score, f"{score}_low", f"{score}_high"))
    return f"{share:.1f} [{low:.1f}, {high:.1f}]"


def _error(fraction: float, signed: bool = True) -> Cell:
    return Cell(percent(fraction, signed=signed), marked=abs(fraction) > NEAR)


def _covered(check: pd.DataFrame, metric: str) -> str:
    """How many measured values are within the bands."""
    rows = check[banded(check, metric)]
    measured = rows[f"{metric}_measured"]
    inside = (rows[f"{metric}_low"] <= measured) & (measured <= rows[f"{metric}_high"])
    return f"{int(inside.sum())} of {len(rows)}" if len(rows) else NOTHING


def _band(row: Mapping[Hashable, Any], metric: str) -> Cell:
    """The band of a time, ms; marked where the measured value is outside."""
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    if not math.isfinite(low) or not math.isfinite(high):
        return Cell(NOTHING)
    outside = not low <= row[f"{metric}_measured"] <= high
    return Cell(f"{milliseconds(low)} to {milliseconds(high)}", marked=outside)


def _spread(data: StudyData, fraction: float) -> Cell:
    """A spread of runs, a fraction; one run has none."""
    return Cell(percent(fraction) if data.summary["repeats"] > 1 else NOTHING)


def _words(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def _facts(caption: str, labels: Sequence[Label], facts: Mapping[str, str]) -> Table:
    rows = [_words(name, value) for name, value in facts.items()]
    return Table(caption, labels, [], rows, words=2)
