"""Speed of the codecs as a ratio to memcpy of the float32 weights, interleaved, medians.

Both write into memory that was written before, as the slots of a device are.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
import torch

from offsim.codec.cuszp import decode_into, encode_array
from offsim.codec.cuszp_kernels import kernels
from offsim.codec.cuszp_kernels.loops import Loops
from offsim.codec.sz3 import Sz3

COUNT = 1 << 24
SZ3_COUNT = 1 << 21
BOUND = 1e-3
REPEATS = 9


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    values = np.random.default_rng(0).normal(0, 0.02, COUNT).astype(np.float32)
    target, half = torch.zeros(COUNT), torch.zeros(COUNT, dtype=torch.bfloat16)
    copied, few = np.zeros_like(values), values[:SZ3_COUNT]
    sz3 = Sz3()
    packed = sz3.encode_values(few, BOUND)
    halves = [slice(0, COUNT // 2), slice(COUNT // 2, COUNT)]
    pool = ThreadPoolExecutor(2)
    works: dict[str, Callable[[], object]] = {
        "memcpy": lambda: np.copyto(copied, values),
        "memcpy, 2 threads": lambda: list(
            pool.map(lambda half: np.copyto(copied[half], values[half]), halves)
        ),
    }
    for core in {kernels().name: kernels(), "numba": Loops()}.values():
        stream = encode_array(values, BOUND, with_kernels=core)
        for threads in (1, 2):
            tail = f"{core.name}, {threads} thread{'s' * (threads > 1)}"
            works[f"cuszp encode f32, {tail}"] = lambda c=core, t=threads: encode_array(
                values, BOUND, threads=t, with_kernels=c
            )
            works[f"cuszp decode f32, {tail}"] = lambda c=core, t=threads, s=stream: decode_into(
                s, target, BOUND, threads=t, with_kernels=c
            )
            works[f"cuszp decode bf16, {tail}"] = lambda c=core, t=threads, s=stream: decode_into(
                s, half, BOUND, threads=t, with_kernels=c
            )
    works["sz3 NOPRED encode f32"] = lambda: sz3.encode_values(few, BOUND)
    works["sz3 NOPRED decode f32"] = lambda: sz3.decode_values(packed, few.shape, BOUND)
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            times[name].append(seconds(work))
    memcpy = np.median(times["memcpy"]) / COUNT
    print(f"{COUNT} float32 weights N(0, 0.02), bound {BOUND:g}, MEASURED, medians of {REPEATS}")
    for name, samples in times.items():
        each = np.median(samples) / (SZ3_COUNT if name.startswith("sz3") else COUNT)
        print(f"{name:44} {4e-6 / each:8.0f} MB/s of float32, {memcpy / each:5.2f} of memcpy")


if __name__ == "__main__":
    main()
