"""Files of foreign formats, written for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np


def ids(
    tokens: int, layers: int = 2, top_k: int = 2, experts: int = 8, seed: int = 0
) -> np.ndarray:
    """Expert ids [tokens, layers, top_k], int64, no expert twice."""
    drawn = np.random.default_rng(seed).random((tokens, layers, experts))
    return drawn.argsort(axis=2)[:, :, :top_k]


def write_lines(path: Path, records: list[Any]) -> Path:
    """JSON lines; a text stands as it is."""
    lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
