"""Decode speed of SZ3 in a pool of processes and in threads, as a ratio to one process in line."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import torch

from offsim.codec import decode, encode
from offsim.codec.pool import DecodePool
from offsim.codec.sz3 import Sz3

MATRICES = 16
SHAPE = (1024, 1024)
BOUND = 1e-3
REPEATS = 7


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)  # the cast to bf16 would use both cores otherwise
    generator = np.random.default_rng(0)
    normal = (generator.normal(0, 0.02, SHAPE).astype(np.float32) for _ in range(MATRICES))
    blobs = [encode(torch.from_numpy(w).bfloat16(), Sz3(), BOUND) for w in normal]
    times: dict[str, list[float]] = {}
    with DecodePool(1) as one, DecodePool(2) as two, ThreadPoolExecutor(2) as threads:
        ways: dict[str, Callable[[], list[torch.Tensor]]] = {
            "in line": lambda: [decode(blob) for blob in blobs],
            "2 threads": lambda: list(threads.map(decode, blobs)),
            "1 worker": lambda: one.decode(blobs),
            "2 workers": lambda: two.decode(blobs),
        }
        expected = ways["in line"]()
        for way in ways.values():
            assert all(map(torch.equal, way(), expected))
        for _ in range(REPEATS):
            for name, way in ways.items():
                times.setdefault(name, []).append(seconds(way))
    medians = {name: float(np.median(samples)) for name, samples in times.items()}
    size = sum(w.nbytes for w in expected)
    print(f"SZ3 NOPRED decode, {MATRICES} bf16 matrices of {SHAPE}, bound {BOUND:g}, MEASURED")
    for name, middle in medians.items():
        speed, ratio = size / middle / 1e6, medians["in line"] / middle
        print(f"{name:10} {speed:6.0f} MB/s of bf16, {ratio:5.2f} of in line")
    print(f"2 workers over 1: {medians['1 worker'] / medians['2 workers']:.2f}")


if __name__ == "__main__":
    main()
