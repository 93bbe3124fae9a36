"""Predictions under one table of bounds after another: with what is kept between them, and each
on its own.

The embedded model's trace on a made-up machine; at each table one expert has another bound, as in
`offsim optimize --by expert`. Seconds are of CPU time; what is kept has to be made once, and that
counts. Both ways give the same metrics.
"""

import sys
from pathlib import Path
from time import process_time

from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.policy import Policy
from offsim.study.case import Case
from offsim.trace import load_trace

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.simulate.bounded import LADDER, machine

TRACE = Path(__file__).parents[1] / "traces" / "embedded.safetensors"
POLICIES: dict[str, dict[str, object]] = {
    "lru": {},
    "lru, oracle ahead": {"prefetch": "oracle"},
    "s3-fifo": {"cache": "s3-fifo"},
    "weight, last-token ahead": {"cache": "weight", "prefetch": "last-token"},
    "lru, kept compressed": {"keep": "compressed"},
    "lru, kept in both tiers": {"keep": "both"},
}
REPEATS = 3


def main() -> None:
    trace = load_trace(TRACE)
    layers, experts = trace.layers, trace.info.experts_per_layer
    tables = [
        Bounds(
            default=Bound(LADDER[0]),
            rules=(Rule(bound=Bound(LADDER[-1]), layers=(layer,), experts=(expert,)),),
        )
        for layer in range(layers)
        for expert in range(0, experts, 4)
    ]
    figures = machine(layers, experts, 0)
    print(f"MEASURED; {len(tables)} tables of bounds, best of {REPEATS}")
    for name, fields in POLICIES.items():
        policy = Policy.model_validate({"codec": "cuszp", "bound": LADDER[0], "slots": 4, **fields})
        tell(name, Case(trace, policy, figures, 1e5), tables)


def tell(name: str, case: Case, tables: list[Bounds]) -> None:
    case.predict()  # compiled and in caches
    alone, kept = [], []
    for _ in range(REPEATS):
        start = process_time()
        plain = [repr(case.with_policy(bound=0.0, bounds=one).predict()) for one in tables]
        alone.append(process_time() - start)
        start = process_time()
        predictor = case.predictor()
        same = [repr(predictor.predict(one)) for one in tables]
        kept.append(process_time() - start)
        assert plain == same
    each = [1e3 * min(seconds) / len(tables) for seconds in (alone, kept)]
    print(
        f"{name:26} {each[0]:7.2f} ms alone, {each[1]:7.2f} ms with what is kept: "
        f"{each[0] / each[1]:5.1f} times as fast",
        flush=True,
    )


if __name__ == "__main__":
    main()
