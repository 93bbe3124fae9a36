"""A small sweep in a folder: 24 scenarios, of which 4 are refused."""

from pathlib import Path
from typing import Any

import yaml

from offsim.files import write_yaml
from offsim.study.sweep.database import reading
from offsim.study.sweep.inputs import Inputs, engine_version
from offsim.trace import save_trace
from tests.builders import TOY, calibration, codec_figures

RAW, LOSSY = codec_figures(), codec_figures("cuszp", 0.5, blob_bytes=500, decode_s=0.5)
MACHINE = calibration(RAW, LOSSY)
BASE: dict[str, Any] = {
    "format": "offsim-sweep",
    "version": 1,
    "traces": {"toy": "toy.safetensors"},
    "calibrations": {"box": "box.yaml"},
}
SMALL: dict[str, Any] = {
    **BASE,
    "fixed": {"link_bytes_per_s": 1000},
    "vary": [
        {"grid": {"policy.slots": [1, 2, 3, 4], "policy.cache": ["lru", "belady"]}},
        {
            "list": [
                {"policy.codec": "raw"},
                {"policy.codec": "cuszp", "policy.bound": 0.5},
                {"policy.codec": "raw", "hardware.link.latency_s": 0.5},
            ]
        },
        {"list": [{"workload.requests": [0]}]},
    ],
}
REFUSED: dict[str, Any] = {**BASE, "fixed": {"policy.codec": "cuszp", "policy.bound": 0.25}}
INPUTS = Inputs(engine_version(), {"toy": TOY}, {"box": MACHINE})


def prepared(folder: Path, spec: dict[str, Any] | None = None) -> Path:
    """A SPEC in a folder, and the files that it names."""
    save_trace(TOY, folder / "toy.safetensors")
    write_yaml(folder / "box.yaml", MACHINE)
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(SMALL if spec is None else spec))
    return path


def all_rows(path: Path) -> list[tuple[object, ...]]:
    """All that a file says of its scenarios, in its order."""
    with reading(path) as sql:
        return list(sql.execute("SELECT * FROM scenarios ORDER BY number"))
