"""A small study folder, made up: nothing here is timed."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from offsim.calibration.schema import Calibration
from offsim.files import write_yaml
from offsim.study.tables import codec_table, compute_table, link_table
from offsim.trace import DECODE, PREFILL, Trace, save_trace
from offsim.trace.format import TraceInfo
from offsim.trace.statistics import use_table
from tests.builders import calibration, codec_figures

LAYERS, EXPERTS, TOP_K = 3, 4, 2
STORAGES = (("raw", 0.0), ("cuszp", 2.0**-7), ("sz3", 0.003))
LINKS = (30.0, 60.0)
SLOTS = (1, 3)


def made_trace(layers: int = LAYERS, experts: int = EXPERTS, tokens: int = 24) -> Trace:
    rng = np.random.default_rng(3)
    ids = [[rng.permutation(experts)[:TOP_K] for _ in range(layers)] for _ in range(tokens)]
    half = tokens // 2
    within = np.arange(half)
    return Trace(
        TraceInfo(model="toy", experts_per_layer=experts, source="a test"),
        experts=np.array(ids, np.uint16),
        weights=np.full((tokens, layers, TOP_K), 1 / TOP_K, np.float16),
        request=np.repeat(np.arange(2), half).astype(np.int32),
        position=np.concatenate([within, within]).astype(np.int32),
        phase=np.where(np.concatenate([within, within]) < 4, PREFILL, DECODE).astype(np.uint8),
    )


def made_calibration() -> Calibration:
    codecs = [
        codec_figures(
            codec,
            bound,
            blob_bytes=333 if bound else 1000,
            encode_s=3e-3,
            decode_s=2e-4,
            compute_slowdown=1.1,
            decode_slowdown=1.2,
        )
        for codec, bound in STORAGES
    ]
    return calibration(*codecs, dense_s=3e-4, expert_s=3e-5, handover_s=4e-5)


def _check() -> pd.DataFrame:
    rows = []
    for number, ((codec, bound), slots, link) in enumerate(product(STORAGES, SLOTS, LINKS)):
        row: dict[str, object] = {
            "codec": codec,
            "bound": bound,
            "cache": "lru",
            "slots": slots,
            "link_MB_per_s": link,
        }
        measured = (0.004 if codec == "cuszp" else 0.008) + 0.3 / (link * slots)
        error = (-0.12, 0.02, 0.004)[number % 3]
        for metric in ("ttft", "tpot", "itl_p95", "throughput"):
            row |= {
                f"{metric}_simulated": (1 + error) * measured,
                f"{metric}_measured": measured,
                f"{metric}_error": error,
                f"{metric}_spread": 0.01,
                f"{metric}_low": 0.9 * (1 + error) * measured,
                f"{metric}_high": 1.1 * (1 + error) * measured,
            }
        row |= {
            "hit_rate_measured": 0.5,
            "decisions_equal": True,
            "tokens_equal": True,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _breakdown(check: pd.DataFrame) -> pd.DataFrame:
    parts = ("compute", "host decode", "link", "device decode", "hand-over")
    rows = [
        {
            "scenario": f"{row['codec']} {number}",
            "label": label,
            "part": part,
            "seconds": row[f"tpot_{label.lower()}"] / len(parts),
        }
        for number, row in enumerate(check.to_dict("records"))
        for label in ("SIMULATED", "MEASURED")
        for part in parts
    ]
    return pd.DataFrame(rows)


def _accuracy() -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for codec, bound in STORAGES:
        named = {"codec": codec, "bound": bound}
        share = 0.75 if bound else 0.85
        for task in ("add", "sort"):
            scores = {
                f"{score}{end}": share + shift
                for score in ("pia", "ica")
                for end, shift in (("", 0.0), ("_low", -0.1), ("_high", 0.1))
            }
            rows.append({**named, "task": task, "items": 20, **scores})
        rows.append({**named, "task": "prose", "bits_a_character": 1.5 + bound})
    return pd.DataFrame(rows)


def _curve() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "codec": codec,
                "bound": 2.0**power,
                "ratio": 10 + power,
                "bits_per_weight": 16 / (10 + power),
                "ideal_bits": 14 / (10 + power),
                "rmse": 2.0**power / 2,
                "decode_bytes_per_s": 4e8 + 1e7 * power,
                "decode_of_memcpy": 0.1,
            }
            for codec in ("cuszp", "sz3")
            for power in (-8, -7, -6)
        ]
        + [
            {
                "codec": "rtn-int4",
                "bound": 0.01,
                "ratio": 4.0,
                "bits_per_weight": 4.0,
                "rmse": 0.003,
                "decode_bytes_per_s": 4e8,
                "decode_of_memcpy": 0.1,
            }
        ]
    )


def _summary(check: pd.DataFrame) -> dict[str, object]:
    return {
        "offsim": "0.1.0",
        "model": "toy",
        "machine": {
            "cpu": "CPU",
            "cores": 2,
            "system": "Linux",
            "measured_on": "2026-01-02",
            "versions": {"numpy": "2.0"},
        },
        "policies_checked": len(check),
        "kendall_tau": 0.9,
        "decision_logs_equal": True,
        "tokens_equal": True,
        "bytes_equal": True,
        "every_expert_within_its_bound": True,
        "link_bytes_per_s": 60e6,
        "link_imitates": "a large model over a fast link",
        "transfer_to_compute": 4.2,
        "transfer_to_compute_imitated": 4.19,
        "link_slowed_by": 533.0,
        "requests": 2,
        "tokens_a_request": 12,
        "repeats": 3,
        "items_a_task": 20,
    }


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    """A folder as `offsim study --out` leaves it."""
    folder = tmp_path / "study"
    folder.mkdir()
    check, machine, trace = _check(), made_calibration(), made_trace()
    write_yaml(folder / "calibration.yaml", machine)
    save_trace(trace, folder / "traces" / "raw-0.safetensors")
    tables = {
        "check": check,
        "breakdown": _breakdown(check),
        "accuracy": _accuracy(),
        "codecs": codec_table(machine),
        "curve": _curve(),
        "compute": compute_table(machine),
        "link": link_table(machine),
        "usage": use_table(trace),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "summary.json").write_text(json.dumps(_summary(check)), encoding="utf-8")
    return folder
