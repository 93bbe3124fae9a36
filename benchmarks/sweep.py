"""Scenarios a second of `offsim sweep`: processes of this machine, and workers of Dask.

Mixtral-8x7b on the data sheet of an RTX 4090, 2,000 decode tokens of made-up routing: every
scenario draws cache, slots, prefetcher, link and decoder. Times include all of the command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import yaml
from distributed import Client
from engine import MIXTRAL, made

from offsim.calibration.profiles import estimated, load_profile, load_shape
from offsim.files import write_yaml
from offsim.trace import save_trace

TOKENS, SKEW = 2000, 1.0
BOUND = 2.0**-10
ADDRESS = "tcp://127.0.0.1:18786"
REPEATS = 3
"""Of the sweeps on Dask, one and two workers in turns."""
MEMORY = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), "1000000000")
"""Dask would have its workers give back memory at once."""
COMMAND = "from offsim.cli import main; main()"


def spec(scenarios: int) -> dict[str, object]:
    """Half of the scenarios raw, half of them compressed; all else is drawn."""
    drawn = {
        "policy.slots": {"low": 1, "high": 6, "whole": True},
        "policy.cache": ["lru", "lfu", "fifo", "belady"],
        "policy.prefetch": ["none", "last-token", "transition"],
        "hardware.link.bytes_per_s": {"low": 8e9, "high": 64e9, "scale": "log"},
        "hardware.link.latency_s": {"low": 1e-6, "high": 1e-4, "scale": "log"},
        "hardware.codecs.cuszp.decode_s.times": {"low": 0.25, "high": 4.0, "scale": "log"},
    }
    return {
        "format": "offsim-sweep",
        "version": 1,
        "traces": {"mixtral": "trace.safetensors"},
        "calibrations": {"4090": "calibration.yaml"},
        "vary": [
            {"list": [{"policy.codec": "raw"}, {"policy.codec": "cuszp", "policy.bound": BOUND}]},
            {"sample": {"count": scenarios // 2, "fields": drawn}},
        ],
    }


def prepare(folder: Path, scenarios: int) -> None:
    save_trace(made(TOKENS + 1, MIXTRAL, SKEW), folder / "trace.safetensors")  # one is the prompt
    machine, model = load_profile("rtx-4090-pcie4"), load_shape("mixtral-8x7b")
    write_yaml(
        folder / "calibration.yaml", estimated(machine, model, [("raw", 0.0), ("cuszp", BOUND)])
    )
    (folder / "sweep.yaml").write_text(yaml.safe_dump(spec(scenarios), sort_keys=False))


def timed(folder: Path, name: str, *options: str) -> tuple[float, float]:
    """Seconds of the whole command, and of it of the sweep alone."""
    out = folder / f"{name}.sqlite"
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "sweep",
        str(folder / "sweep.yaml"),
        "--out",
        str(out),
    ]
    start = perf_counter()
    done = subprocess.run([*command, *options, "--json"], check=True, stdout=subprocess.PIPE)
    return perf_counter() - start, json.loads(done.stdout)["seconds"]


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    place = ADDRESS.removeprefix("tcp://").split(":")
    scheduler = [*dask, "--host", place[0], "--port", place[1], "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", ADDRESS, "--nthreads", "1"]
    started = [
        subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **MEMORY})
        for command in (scheduler, *[[*worker, "--no-dashboard"]] * workers)
    ]
    try:
        with Client(ADDRESS, timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
        yield
    finally:
        for one in reversed(started):
            one.terminate()
            one.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", type=int, default=10_000)
    parser.add_argument("--dask", action="store_true", help="also one and two Dask workers")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, asked.scenarios)
        print(f"MEASURED; {asked.scenarios:,} scenarios of {TOKENS:,} decode tokens")
        for jobs in (2, 1):
            tell(
                f"--jobs {jobs}",
                asked.scenarios,
                timed(folder, f"jobs-{jobs}", "--jobs", str(jobs)),
            )
        for number in range(REPEATS if asked.dask else 0):
            for workers in (1, 2):
                with cluster(workers):
                    seconds = timed(folder, f"dask-{workers}-{number}", "--dask", ADDRESS)
                tell(f"{workers} Dask worker{'s' * (workers > 1)}", asked.scenarios, seconds)


def tell(who: str, scenarios: int, seconds: tuple[float, float]) -> None:
    whole, alone = seconds
    speed = scenarios / alone
    print(
        f"{who:16} command {whole:6.1f} s, sweep {alone:6.1f} s: {speed:6.0f} scenarios/s, "
        f"{speed * TOKENS:12,.0f} tokens/s",
        flush=True,
    )


if __name__ == "__main__":
    main()
