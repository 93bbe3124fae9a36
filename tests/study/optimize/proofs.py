"""A proof whose numbers are known by hand."""

from collections.abc import Sequence

from offsim.accuracy.sensitivity_parts import Ranged
from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds, Rule
from offsim.study.optimize.around import Around, Swing, Winners
from offsim.study.optimize.by_task import ByTask, OfTask, Served
from offsim.study.optimize.latency import Both
from offsim.study.optimize.proof_file import Kind, Proof, Way
from tests.builders import calibration

ANSWER = Bounds(default=Bound(0.25), rules=(Rule(bound=Bound(0.5), layers=(1,)),))


def ranged(mean: float) -> Ranged:
    return Ranged(mean=mean, low=0.5 * mean, high=2 * mean)


def both(measured: float, repeats: Sequence[float] = ()) -> Both:
    """Predicted 2 % too long, in a band of 10 %."""
    simulated = 1.02 * measured
    return Both(
        simulated=simulated,
        measured=measured,
        low=0.9 * simulated,
        high=1.1 * simulated,
        repeats=list(repeats) or [measured] * 3,
    )


def way(
    name: str,
    kind: Kind,
    tpot: float,
    kl: float,
    bounds: Bounds | None = None,
    repeats: Sequence[float] = (),
) -> Way:
    return Way(
        name=name,
        kind=kind,
        codec="raw" if kind == "raw" else "cuszp",
        bounds=bounds,
        tpot=both(tpot, repeats),
        ttft=both(10 * tpot),
        link_bytes=int(1e9 * tpot),
        kl_estimated=None if bounds is None else ranged(2 * kl),
        kl=ranged(kl),
        ica=0.8 - kl,
        ica_change=Ranged(mean=-kl, low=-2 * kl, high=0.0),
        decisions_equal=True,
    )


def uniform(bound: float, tpot: float, kl: float, repeats: Sequence[float] = ()) -> Way:
    table = Bounds(default=Bound(bound))
    return way(f"one bound, {bound:g}", "uniform", tpot, kl, table, repeats)


def proof(*ways: Way, nats: float = 0.05) -> Proof:
    """Of three layers of four experts."""
    made = calibration()
    return Proof(
        offsim="0.1.0",
        machine=made.machine,
        model=made.model,
        budget=f"kl<={nats:g}",
        nats=nats,
        goal="tpot",
        by="layer",
        policy="lru 1",
        link_bytes_per_s=6e7,
        exact=True,
        gap=0.0,
        simulations=64,
        requests=2,
        tokens=24,
        sequences=64,
        items=500,
        ways=list(ways),
        around=AROUND,
    )


AROUND = Around(
    now_s=0.006,
    prices=[1.0, 2.0, 3.0],
    swings=[
        Swing(figure="bandwidth of the link", less_s=0.008, more_s=0.005),
        Swing(figure="compute", less_s=0.0055, more_s=0.0065),
    ],
    winners=Winners(
        bytes_per_s=[3e7, 6e7],
        slots=[1, 2, 4],
        names=[["optimised", "optimised", "raw"], ["optimised", "raw", "raw"]],
        gains=[[0.5, 0.4, 0.0], [0.3, 0.0, 0.0]],
    ),
)


def served(measured: float, change: float) -> Served:
    return Served(latency=both(measured), ica_change=Ranged(mean=change, low=-0.2, high=0.0))


BY_TASK = ByTask(
    single=0.25,
    one=served(0.008, -0.1),
    each=served(0.006, -0.08),
    gained=Ranged(mean=0.02, low=-0.01, high=0.05),
    items=500,
    tasks=[
        OfTask(
            task=name,
            bound=bound,
            latency=both(seconds),
            chosen_change=-0.05,
            ica_change=Ranged(mean=change, low=-0.2, high=0.0),
        )
        for name, bound, seconds, change in (
            ("add", 0.5, 0.004, -0.12),
            ("word", 0.25, 0.008, -0.04),
        )
    ],
    decisions_equal=True,
)


def usual(answer_s: float = 0.006, kl: float = 0.04) -> Proof:
    """The answer between the bounds 0.25 (8 ms, KL 0.01) and 0.5 (4 ms, KL 0.16)."""
    return proof(
        way("optimised", "optimised", answer_s, kl, ANSWER),
        way("raw", "raw", 0.012, 0.0),
        uniform(0.25, 0.008, 0.01),
        uniform(0.5, 0.004, 0.16),
        way("rtn-int8", "other", 0.007, 0.002),
    )
