"""What a study left in its folder, read and checked before anything is drawn of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from offsim.calibration.schema import Calibration
from offsim.errors import FormatError, InputError
from offsim.files import read_json, read_text, read_yaml
from offsim.trace import Trace, load_trace

REMEDY = "make the folder with `offsim study --out DIR`"
TRACE = Path("traces") / "raw-0.safetensors"
"""The trace that the report shows: the workload under the model's own experts."""

TEXT: dict[str, tuple[str, ...]] = {
    "check": ("codec",),
    "breakdown": ("scenario", "label", "part"),
    "accuracy": ("codec", "task"),
    "codecs": ("codec", "placement"),
    "curve": ("codec",),
    "compute": ("part",),
    "link": (),
    "usage": (),
}
"""Columns of text that the report uses, by table."""
TRUTH: dict[str, tuple[str, ...]] = {"check": ("decisions_equal", "tokens_equal")}
"""Columns of true and false."""
NUMBERS: dict[str, tuple[str, ...]] = {
    "check": (
        "bound",
        "slots",
        "link_MB_per_s",
        *(
            f"{metric}_{column}"
            for metric in ("ttft", "tpot", "itl_p95", "throughput")
            for column in ("simulated", "measured", "error", "spread")
        ),
        "hit_rate_measured",
    ),
    "breakdown": ("seconds",),
    "accuracy": (
        "bound",
        "items",
        "pia",
        "pia_low",
        "pia_high",
        "ica",
        "ica_low",
        "ica_high",
        "bits_a_character",
    ),
    "codecs": (
        "bound",
        "ratio_bf16",
        "bits_per_weight",
        "largest_error_bf16",
        "fallbacks",
        "encode_MB_per_s",
        "decode_MB_per_s",
        "decode_ms_per_expert",
        "compute_slowdown",
        "decode_slowdown",
    ),
    "curve": (
        "bound",
        "ratio",
        "bits_per_weight",
        "ideal_bits",
        "rmse",
        "decode_bytes_per_s",
        "decode_of_memcpy",
    ),
    "compute": ("tokens", "ms", "p10_ms", "p90_ms", "samples"),
    "link": ("bytes", "us", "GB_per_s"),
    "usage": (
        "layer",
        "imbalance",
        "utilisation",
        "entropy",
        "gini",
        "overlap",
        "chance",
        "distinct_prefill",
        "distinct_decode",
    ),
}
"""Columns of numbers. A table may have more columns; these it must have."""
BANDS = tuple(
    f"{metric}_{end}"
    for metric in ("ttft", "tpot", "itl_p95", "throughput")
    for end in ("low", "high")
)
"""Columns of check.csv that a study of an earlier version lacks; empty where there is no band."""
SPARSE = ("accuracy", "usage", "curve")
"""Tables whose numbers may be missing: prose has no share, a trace without prompts no prefill, a
codec without a bound no ideal size."""


class _Machine(BaseModel):
    """The machine of summary.json; what else it says is kept."""

    model_config = ConfigDict(extra="allow")

    cpu: str
    cores: int
    system: str
    measured_on: str
    versions: dict[str, str]


class _Summary(BaseModel):
    """What the report needs of summary.json; what else it says is kept."""

    model_config = ConfigDict(extra="allow")

    offsim: str
    model: str
    machine: _Machine
    policies_checked: int
    kendall_tau: float | None
    decision_logs_equal: bool
    tokens_equal: bool
    bytes_equal: bool
    every_expert_within_its_bound: bool
    link_bytes_per_s: float = Field(gt=0, allow_inf_nan=False)
    link_imitates: str
    transfer_to_compute: float
    transfer_to_compute_imitated: float
    link_slowed_by: float
    requests: int
    tokens_a_request: int
    repeats: int
    items_a_task: int


@dataclass(frozen=True)
class StudyData:
    """A study as its folder has it.

    Attributes:
        check: a row a scenario: policy, link (MB/s), metrics (s) simulated and measured, their
            errors and spreads (fractions), and the ends of their bands, NaN where there is none.
        breakdown: rows of scenario, label, part and seconds a token; the scenarios are those of
            `check` in the same order.
        accuracy: rows of codec, bound, task; shares with intervals (0..1) or bits a character.
        codecs: a row a codec and bound.
        curve: rows of codec, bound, ratio, bits a weight, errors and speeds.
        compute: rows of part, tokens and ms.
        link: rows of bytes and us of plain copies.
        usage: a row a layer, of the raw trace.
        summary: what is in summary.json.
        calibration: of the machine.
        trace: of the workload under raw experts.
    """

    check: pd.DataFrame
    breakdown: pd.DataFrame
    accuracy: pd.DataFrame
    codecs: pd.DataFrame
    curve: pd.DataFrame
    compute: pd.DataFrame
    link: pd.DataFrame
    usage: pd.DataFrame
    summary: dict[str, Any]
    calibration: Calibration
    trace: Trace


def load_study(folder: Path) -> StudyData:
    """Read the folder of a study.

    Args:
        folder: that `offsim study --out` wrote.

    Raises:
        InputError: a file is missing or cannot be read; it is named.
        FormatError: a file is not what a study writes; it is named.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; {REMEDY}")
    names = ["summary.json", "calibration.yaml", *(f"{name}.csv" for name in TEXT), str(TRACE)]
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: there is no such file; {REMEDY}")
    try:
        summary = read_json(folder / "summary.json", _Summary).model_dump(mode="json")
        calibration = read_yaml(folder / "calibration.yaml", Calibration)
        tables = {name: _table(folder / f"{name}.csv") for name in TEXT}
        trace = load_trace(folder / TRACE)
        _check_agreement(folder, tables, summary)
    except FormatError as error:
        raise FormatError(f"{error}; {REMEDY}") from error
    except InputError as error:
        raise InputError(f"{error}; {REMEDY}") from error
    return StudyData(**tables, summary=summary, calibration=calibration, trace=trace)


def _table(path: Path) -> pd.DataFrame:
    """A CSV table with the columns that the report uses, numbers as float64 or int64."""
    read_text(path)  # for its errors: pandas words them differently from one version to the next
    try:
        table = pd.read_csv(path)
    except ValueError as error:  # pandas' parser and empty-file errors are ValueErrors
        raise FormatError(f"{path}: not a CSV table ({' '.join(str(error).split())})") from error
    name = path.stem
    wanted = (*TEXT[name], *NUMBERS[name], *TRUTH.get(name, ()))
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise FormatError(f"{path}: the column {missing[0]} is missing")
    if table.empty:
        raise FormatError(f"{path}: the table has no rows")
    ends = BANDS if name == "check" else ()
    for column in [end for end in ends if end not in table.columns]:
        table[column] = np.nan
    for column in (*NUMBERS[name], *ends):
        if not pd.api.types.is_numeric_dtype(table[column].dtype):
            raise FormatError(f"{path}: the column {column} is not of numbers")
        if name not in SPARSE and column not in ends and not np.isfinite(table[column]).all():
            raise FormatError(f"{path}: the column {column} has a cell without a finite number")
    for column in TRUTH.get(name, ()):
        if not pd.api.types.is_bool_dtype(table[column].dtype):
            raise FormatError(f"{path}: the column {column} is not of true and false")
    for column in TEXT[name]:
        if table[column].isna().any():
            raise FormatError(f"{path}: the column {column} has an empty cell")
        table[column] = table[column].astype(str)
    return table


def _check_agreement(
    folder: Path, tables: dict[str, pd.DataFrame], summary: dict[str, Any]
) -> None:
    """Refuse files of different studies: their numbers would contradict each other on one page."""
    check = tables["check"]
    if summary["policies_checked"] != len(check):
        raise FormatError(
            f"{folder / 'summary.json'}: policies_checked is "
            f"{json.dumps(summary['policies_checked'])}, but check.csv has {len(check)} rows"
        )
    scenarios = list(dict.fromkeys(tables["breakdown"]["scenario"]))
    codecs = list(check["codec"])
    if len(scenarios) != len(codecs) or not all(map(str.startswith, scenarios, codecs)):
        raise FormatError(f"{folder / 'breakdown.csv'}: its scenarios are not those of check.csv")
