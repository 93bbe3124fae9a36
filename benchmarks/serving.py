"""A hundred requests of gpt-oss-20b decoding together: TTFT, ITL, and how long simulating takes.

The requests are cuts of the recorded trace in shared/traces, the machine is ESTIMATED.
"""

from pathlib import Path
from time import perf_counter

import numpy as np

from offsim.calibration.profiles import estimated, load_profile, load_shape
from offsim.policy.policy import Policy
from offsim.record import Metrics
from offsim.simulate.arrivals import Seconds, at_once, even, poisson
from offsim.simulate.batching import Batching
from offsim.simulate.serving import serve
from offsim.trace import DECODE, PREFILL, Trace
from offsim.trace.importers import Options, importer_named
from offsim.units import show_bytes, show_seconds

RECORDED = Path(__file__).parents[2] / "shared" / "traces" / "gpt-oss-20b_decode.npz"
MACHINE, MODEL, SLOTS = "rtx-4090-pcie4", "gpt-oss-20b", 12
REQUESTS, SEED, DAY_S = 100, 0, 86400.0
PROMPT, OUTPUT = (16, 256), (32, 255)
"""Shortest and longest, tokens."""


def cuts(recorded: Trace, requests: int, seed: int) -> Trace:
    """Requests cut out of recorded ones, which take turns so that neighbours differ.

    Each is a stretch of one recorded request, beginning at a random token of it; lengths of prompt
    and output are drawn evenly on a logarithmic scale. What was recorded are decode tokens: as
    prompts they take experts as text of the model's own does. Stretches may overlap.
    """
    rng = np.random.default_rng(seed)
    starts = np.flatnonzero(np.diff(recorded.request, prepend=-1))
    lengths = np.diff(starts, append=recorded.tokens)
    rows, prompts = [], []
    for number in range(requests):
        source = number % len(starts)
        prompt, output = (int(np.exp(rng.uniform(*np.log(span)))) for span in (PROMPT, OUTPUT))
        tokens = prompt + output - 1  # the prompt gives the first output token
        start = starts[source] + rng.integers(lengths[source] - tokens + 1)
        rows.append(np.arange(start, start + tokens))
        prompts.append(prompt)
    phases = [
        np.where(np.arange(len(own)) < prompt, PREFILL, DECODE)
        for own, prompt in zip(rows, prompts, strict=True)
    ]
    taken = np.concatenate(rows)
    return Trace(
        recorded.info,
        experts=recorded.experts[taken],
        weights=recorded.weights[taken],
        request=np.repeat(np.arange(requests, dtype=np.int32), list(map(len, rows))),
        position=np.concatenate([np.arange(len(own), dtype=np.int32) for own in rows]),
        phase=np.concatenate(phases).astype(np.uint8),
    )


SCENES: dict[str, tuple[Seconds, Batching]] = {
    "evenly over a day": (even(REQUESTS, DAY_S), Batching(100)),
    "25 at once every six hours": (np.repeat(even(4, DAY_S), REQUESTS // 4), Batching(100)),
    "Poisson, 0.5 a second, at most 16, prompts in chunks of 64": (
        poisson(REQUESTS, 0.5, SEED),
        Batching(16, 64),
    ),
    "all at once, at most 16, prompts in chunks of 64": (at_once(REQUESTS), Batching(16, 64)),
    "all at once and all together, whole prompts": (at_once(REQUESTS), Batching(REQUESTS)),
}


def show(metrics: Metrics) -> None:
    for name in ("ttft", "itl"):
        values = [getattr(metrics, f"{name}_p{share}_s") for share in (50, 95, 99)]
        print(f"  {name.upper()} p50 / p95 / p99: {' / '.join(map(show_seconds, values))}")
    print(
        f"  {metrics.tokens_per_s:.3g} tokens/s, hit rate {metrics.hit_rate:.1%}, "
        f"{show_bytes(metrics.link_bytes)} over the link"
    )


def main() -> None:
    if not RECORDED.is_file():
        print(f"skipped: needs {RECORDED.name} in {RECORDED.parent}")
        return
    trace = cuts(importer_named("arrays").read(RECORDED, Options()), REQUESTS, SEED)
    profile, shape = load_profile(MACHINE), load_shape(MODEL)
    machine, policy = estimated(profile, shape), Policy(slots=SLOTS)
    print(
        f"{REQUESTS} requests of {shape.title}, {trace.tokens} rows, on {profile.title}, "
        f"{policy} of {shape.experts} a layer"
    )
    serve(cuts(trace, 2, SEED), policy, machine, at_once(2), Batching())  # compiles
    for name, (arrivals, batching) in SCENES.items():
        start = perf_counter()
        served = serve(trace, policy, machine, arrivals, batching)
        metrics = served.metrics()
        took = perf_counter() - start
        table = served.outcome.table()
        simulated = int(table.end[-1]) / 1e12
        print(f"{name} [{metrics.label}]")
        show(metrics)
        print(f"  batch: mean {served.together.mean():.3g}, largest {served.together.max()}")
        print(
            f"  {show_seconds(simulated)} simulated in {took:.1f} s, {simulated / took:.3g} times "
            f"as fast; {len(served.together)} steps, {len(served.together) / took:.0f} a second "
            "[MEASURED]"
        )


if __name__ == "__main__":
    main()
