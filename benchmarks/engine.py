"""Simulated tokens a second of both engines, beside a bare SimPy timeout loop in the same run.

`all` is everything from trace to metrics: decisions, clock, metrics. `again` is the same for
another link, where the decisions are known: a sweep. `clock` is the engine alone.
"""

import sys
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np
import simpy

from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.simulate import predict
from offsim.simulate.costs import Costs
from offsim.simulate.fast.planning import fast_planned
from offsim.simulate.simulation import engine_named
from offsim.trace import Trace
from offsim.trace.format import NOWHERE

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.builders import calibration, codec_figures, trace_of

TIMEOUTS = 300_000
REPEATS = 5
MIXTRAL, QWEN = (32, 8, 2), (48, 128, 8)
"""Layers, experts, top-k."""
CHUNKED = {"prefetch": "gate", "transfer": Transfer(chunk_bytes=250)}


def bare() -> float:
    """Timeouts a second of a SimPy process that does nothing else."""

    def loop(env: simpy.Environment) -> object:
        for _ in range(TIMEOUTS):
            yield env.timeout(1.0)

    env = simpy.Environment()
    env.process(loop(env))
    start = perf_counter()
    env.run()
    return TIMEOUTS / (perf_counter() - start)


def made(tokens: int, shape: tuple[int, int, int], skew: float) -> Trace:
    """A trace of independent draws, expert i of each layer with weight i^-skew, and its gates."""
    layers, experts, top_k = shape
    rng = np.random.default_rng(0)
    weights = np.arange(1.0, experts + 1) ** -skew
    ids = np.stack(
        [
            (rng.exponential(size=(tokens, experts)) / rng.permutation(weights)).argsort(1)
            for _ in range(layers)
        ],
        1,
    )[:, :, :top_k]
    trace = trace_of(ids.tolist(), experts)
    ahead = np.full((tokens, layers, 1, top_k), NOWHERE, np.uint16)
    ahead[:, :-1, 0] = trace.experts[:, 1:]  # three in four right
    wrong = rng.random((tokens, layers)) < 0.25
    wrong[:, -1] = False
    ahead[wrong, 0] = trace.experts[rng.permutation(tokens)][wrong]
    return Trace(trace.info, **{**trace.arrays(), "lookahead": ahead})


def machine(shape: tuple[int, int, int], codec: str) -> Calibration:
    """Blobs of different sizes, hand-overs that take time, decoding that slows compute."""
    layers, experts, _ = shape
    figures = codec_figures(
        codec,
        0.0 if codec == "raw" else 0.1,
        layers=layers,
        experts=experts,
        decode_s=0.3,
        compute_slowdown=1.2,
        decode_slowdown=1.3,
    )
    if codec != "raw":
        sizes = np.random.default_rng(1).integers(900, 1100, (layers, experts)).tolist()
        figures = figures.model_copy(update={"blob_bytes": sizes})
    return calibration(figures, layers=layers, experts=experts, handover_s=0.01)


def tell(
    title: str, trace: Trace, figures: Calibration, policy: Policy, engine: str, bare_s: float
) -> None:
    """Print the best of some repeats, all of it and the clock alone."""
    link = 3000.0
    costs = Costs(figures, policy, link)
    whole, again, alone = [], [], []
    for _ in range(REPEATS if engine == "fast" else 2):
        fresh = Trace(trace.info, **trace.arrays())  # nothing is known of it
        start = perf_counter()
        metrics = predict(fresh, policy, figures, link, engine=engine)
        whole.append(perf_counter() - start)
        start = perf_counter()
        predict(fresh, policy, figures, 1.1 * link, engine=engine)
        again.append(perf_counter() - start)
        plan, _ = fast_planned(trace, policy, costs, None)
        clock = engine_named(engine, costs.machine(), events=False)
        start = perf_counter()
        clock.advance(plan)
        alone.append(perf_counter() - start)
    speed, once_more, clock_speed = (trace.tokens / min(s) for s in (whole, again, alone))
    print(
        f"{title:32} {engine:5} all {speed:9,.0f} tokens/s ({bare_s / speed:6.1f} bare timeouts a "
        f"token)  again {once_more:9,.0f}  clock {clock_speed:9,.0f}  hits {metrics.hit_rate:.0%}"
        + (f", late {metrics.late_rate:.0%}" if metrics.late_rate else "")
    )


def sweep(trace: Trace, bare_s: float) -> None:
    """200 policies over one trace, of which no two take the same decisions at the same cost."""
    raw, cuszp = (machine(MIXTRAL, codec) for codec in ("raw", "cuszp"))
    chunks = CHUNKED["transfer"]
    moving = (
        {},
        {"transfer": chunks},
        CHUNKED,
        {"prefetch": "last-token", "transfer": chunks},
        {"prefetch": "transition"},
    )
    policies = [
        Policy(codec=codec, bound=0.0 if codec == "raw" else 0.1, cache=cache, slots=slots, **more)
        for codec, cache, slots, more in product(
            ("raw", "cuszp"), ("lru", "lfu", "fifo", "belady"), range(1, 6), moving
        )
    ]
    start = perf_counter()
    for policy in policies:
        predict(trace, policy, raw if policy.codec == "raw" else cuszp, 3000.0)
    seconds = perf_counter() - start
    print(
        f"{len(policies)} policies x {trace.tokens:,} tokens, three in five with a prefetcher: "
        f"{seconds:.1f} s ({seconds * bare_s / 1e6:.1f} million bare timeouts)"
    )


def main() -> None:
    bare_s = max(bare() for _ in range(3))
    print(f"MEASURED; a bare SimPy loop: {bare_s:,.0f} timeouts/s")
    for title, shape, tokens in (
        ("32 layers x 8 experts, top-2, 4 slots", MIXTRAL, 10_000),
        ("48 layers x 128 experts, top-8, 64 slots", QWEN, 3_000),
    ):
        for skew, name in ((0.0, "uniform"), (1.0, "skewed")):
            trace = made(tokens, shape, skew)
            for codec in ("raw", "cuszp"):
                figures = machine(shape, codec)
                for more in ({}, CHUNKED):
                    policy = Policy(
                        codec=codec, bound=figures.codecs[0].bound, slots=shape[1] // 2, **more
                    )
                    kind = f"{name}, {codec}{', prefetch, chunks' if more else ''}"
                    if name == "uniform" and codec == "raw" and not more:
                        print(title)
                    tell(f"  {kind}", trace, figures, policy, "fast", bare_s)
                    if shape == MIXTRAL and not more:
                        tell(f"  {kind}", trace, figures, policy, "simpy", bare_s)
    sweep(made(10_000, MIXTRAL, 1.0), bare_s)


if __name__ == "__main__":
    main()
