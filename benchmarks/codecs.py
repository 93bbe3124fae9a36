"""Encode and decode speed of each codec as a ratio to memcpy, interleaved, medians of 7."""

from time import perf_counter

import numpy as np

from offsim.codec.cuszp import Cuszp
from offsim.codec.sz3 import Sz3

COUNT = 1 << 22
BOUND = 1e-3
REPEATS = 7


def seconds(work: object) -> float:
    start = perf_counter()
    work()  # type: ignore[operator]
    return perf_counter() - start


def main() -> None:
    values = np.random.default_rng(0).normal(0, 0.02, COUNT).astype(np.float32)
    target = np.empty_like(values)
    codecs = [Cuszp(), Sz3()]
    payloads = {codec.name: codec.encode_values(values, BOUND) for codec in codecs}
    for codec in codecs:
        codec.decode_values(payloads[codec.name], COUNT, BOUND)
    times: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        times.setdefault("memcpy", []).append(seconds(lambda: np.copyto(target, values)))
        for codec in codecs:
            encode = seconds(lambda c=codec: c.encode_values(values, BOUND))
            decode = seconds(lambda c=codec: c.decode_values(payloads[c.name], COUNT, BOUND))
            times.setdefault(f"{codec.name} encode", []).append(encode)
            times.setdefault(f"{codec.name} decode", []).append(decode)
    memcpy = float(np.median(times["memcpy"]))
    print(f"{COUNT} float32 weights N(0, 0.02), bound {BOUND:g}, one thread, MEASURED")
    for name, samples in times.items():
        middle = float(np.median(samples))
        speed = values.nbytes / middle / 1e6
        print(f"{name:14} {speed:8.0f} MB/s of float32, {memcpy / middle:5.2f} of memcpy")


if __name__ == "__main__":
    main()
