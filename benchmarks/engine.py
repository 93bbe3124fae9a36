"""Simulated tokens a second of the SimPy engine, beside a bare SimPy timeout loop."""

import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import simpy

from offsim.policy.policy import Policy
from offsim.record import metrics_of
from offsim.simulate import simulate

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.builders import calibration, codec_figures, trace_of

TOKENS, LAYERS, EXPERTS = 1000, 32, 8
TIMEOUTS = 200_000


def main() -> None:
    rng = np.random.default_rng(0)
    ids = rng.random((TOKENS, LAYERS, EXPERTS)).argsort(2)[:, :, :2]
    trace = trace_of(ids.tolist(), EXPERTS)
    shape = {"layers": LAYERS, "experts": EXPERTS}
    figures = calibration(codec_figures(**shape), **shape)
    start = perf_counter()
    metrics_of(simulate(trace, Policy(slots=4), figures, 1000.0))
    engine = TOKENS / (perf_counter() - start)

    def loop(env: simpy.Environment) -> object:
        for _ in range(TIMEOUTS):
            yield env.timeout(1.0)

    env = simpy.Environment()
    env.process(loop(env))
    start = perf_counter()
    env.run()
    bare = TIMEOUTS / (perf_counter() - start)
    print(
        f"{TOKENS} tokens x {LAYERS} layers x {EXPERTS} experts, top-2, LRU of 4 a layer, MEASURED"
    )
    print(f"SimPy engine {engine:10.0f} tokens/s")
    print(f"bare SimPy   {bare:10.0f} timeouts/s")
    print(f"a token costs {bare / engine:.0f} bare timeouts")


if __name__ == "__main__":
    main()
