"""Inputs of the official streams, made anew from their formulas, and what came of them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from offsim.codec.base import Float32

MODES = ("fixed", "plain", "outlier")

CASES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("cuszp_golden.json").read_text(encoding="utf-8")
)["cases"]


def id_of(case: dict[str, Any]) -> str:
    return f"{case['mode']}-{case['name']}-{case['eb']}"


def of_mode(mode: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["mode"] == mode]


def normal(seed: int, count: int, scale: float = 0.02) -> Float32:
    return np.random.default_rng(seed).normal(0, scale, count).astype(np.float32)


def sine() -> Float32:
    return np.array([math.sin(i * 0.01) * 10 + 50 for i in range(5000)], np.float32)


def offset_hash() -> Float32:
    hashed = np.arange(9999, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return (100.0 + hashed.astype(np.float64) / 4294967296.0).astype(np.float32)


def bf16_like() -> Float32:
    bits = normal(9, 8192).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def special() -> Float32:
    values = [np.nan, np.inf, -np.inf, -0.0, 1e-45, -1e-40, 1e9, -1e9]
    values += [2147483.5, -2147483.5, 214748.36, -214748.36, 0.05, -0.05, 3e38, -3e38]
    return np.tile(np.array(values, np.float32), 16)


INPUTS: dict[str, Callable[[], Float32]] = {
    "normal_1": lambda: normal(7, 1),
    "normal_33": lambda: normal(7, 33),
    "normal_1000": lambda: normal(1, 1000),
    "normal_32769": lambda: normal(4, 32769),
    "normal1e4_2000": lambda: normal(11, 2000, 1e4),
    "sine_5000": sine,
    "zeros_70000": lambda: np.zeros(70000, np.float32),
    "const_32768": lambda: np.full(32768, 1.2345, np.float32),
    "ties_2001": lambda: ((np.arange(2001) - 1000) * 0.125).astype(np.float32),
    "ramp_small_3000": lambda: (np.arange(3000) * 0.01 + 50).astype(np.float32),
    "offset_hash_9999": offset_hash,
    "bf16like_8192": bf16_like,
    "special_256": special,
}
