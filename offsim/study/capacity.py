"""How many requests a second a machine holds, and how many machines a load needs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from offsim.errors import InputError
from offsim.record import Metrics
from offsim.record.events import Label
from offsim.simulate import serve
from offsim.simulate.arrivals import poisson
from offsim.simulate.batching import Batching
from offsim.study.case import Case
from offsim.trace import Trace
from offsim.trace.cut import joined, split

CLOSE = 1.05
"""Ratio of a rate that is too high to one that holds, at which the search ends."""
DOUBLINGS = 10
"""Of the rate at which one request comes when the last has gone: a thousand times less and nobody
meets anybody, a thousand times more and all come at once."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Target:
    """What requests may wait for.

    Attributes:
        ttft_s: 95th percentile over requests of the time to the first token, from their arrival.
        tpot_s: mean over requests of the time per output token.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.ttft_s, self.tpot_s) if value is not None]
        if not given or not all(0 < value < math.inf for value in given):
            raise InputError("a target is a TTFT, a TPOT, or both, above zero; give --ttft, --tpot")


@dataclass(frozen=True)
class Load:
    """Requests that arrive at random at a rate; means over several draws of the arrivals.

    Attributes:
        per_s: requests a second.
        ttft_p95_s: SIMULATED, s.
        tpot_s: SIMULATED, s.
        tokens_per_s: output tokens over the time that all took.
        batch: requests that share a step, in the mean.
        holds: whether both targets are kept.
    """

    per_s: float
    ttft_p95_s: float
    tpot_s: float
    tokens_per_s: float
    batch: float
    holds: bool


@dataclass(frozen=True)
class Capacity:
    """How much a machine holds.

    Attributes:
        label: SIMULATED or ESTIMATED.
        target: that is kept.
        requests: of each simulation.
        draws: of arrivals at each rate.
        loads: all that were tried, by their rates.
    """

    label: Label
    target: Target
    requests: int
    draws: int
    loads: tuple[Load, ...]

    @property
    def per_s(self) -> float:
        """The highest rate that was seen to hold, below the lowest that was not; 0 if none is."""
        below = (load for load in self.loads if load.holds and load.per_s < self.too_high)
        return max((load.per_s for load in below), default=0.0)

    @property
    def too_high(self) -> float:
        """The lowest rate that was seen not to hold, requests/s; infinite if all were held."""
        return min((load.per_s for load in self.loads if not load.holds), default=math.inf)

    def machines(self, per_s: float) -> int:
        """Machines for so many requests a second, each with its share of them.

        Raises:
            InputError: a machine does not hold any.
        """
        if not self.per_s:
            raise InputError("a machine does not keep the target for any rate; loosen it")
        return math.ceil(per_s / self.per_s)


def capacity(
    case: Case,
    batching: Batching,
    target: Target,
    requests: int = 100,
    draws: int = 3,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Capacity:
    """Search the rate of arrivals up to which a target is kept.

    The same draws of arrivals serve all rates, only faster or slower, so that rates differ in
    nothing else. That a higher rate is not better is assumed.

    Args:
        case: trace, policy, machine and link.
        batching: how many may share a step.
        target: what is to be kept.
        requests: of each simulation, drawn from those of the trace.
        draws: of arrivals and requests.
        seed: of the first draw.
        progress: for a display.

    Raises:
        InputError: as for `offsim.simulate.serve`.
    """
    drawn = [_drawn(case.trace, requests, seed + number) for number in range(draws)]
    loads: list[Load] = []
    labels: set[Label] = set()

    def tried(per_s: float) -> Load:
        seen = []
        for number, trace in enumerate(drawn):
            told = f"{per_s:.3g} requests/s, draw {number + 1} of {draws}"
            progress(told, min(0.95, len(loads) / 12))
            arrive = poisson(requests, per_s, seed + number).tolist()
            link, profile = case.link_bytes_per_s, case.profile
            served = serve(trace, case.policy, case.calibration, arrive, batching, link, profile)
            seen.append((served.metrics(), float(served.together.mean())))
        labels.update(metrics.label for metrics, _ in seen)
        load = _load(per_s, seen, target)
        loads.append(load)
        return load

    alone = case.predict()
    tokens = alone.output_tokens / alone.requests
    rate = 1 / (alone.ttft_s + max(0.0, tokens - 1) * _finite(alone.tpot_s))
    low, high = _bracket(tried, rate)
    while low is not None and high is not None and high > CLOSE * low:
        middle = math.sqrt(low * high)
        if tried(middle).holds:
            low = middle
        else:
            high = middle
    (label,) = labels
    found = tuple(sorted(loads, key=lambda load: load.per_s))
    return Capacity(label, target, requests, draws, found)


def _bracket(tried: Callable[[float], Load], rate: float) -> tuple[float | None, float | None]:
    """A rate that holds and one that does not; None where there is none within reach."""
    holds = tried(rate).holds
    for _ in range(DOUBLINGS):
        following = rate * 2 if holds else rate / 2
        if tried(following).holds != holds:
            return (rate, following) if holds else (following, rate)
        rate = following
    return (rate, None) if holds else (None, rate)


def _drawn(trace: Trace, requests: int, seed: int) -> Trace:
    """Requests of a trace, each as likely as the others, as often as it is drawn."""
    return joined(Random(seed).choices(split(trace), k=requests))


def _load(per_s: float, seen: list[tuple[Metrics, float]], target: Target) -> Load:
    ttft, tpot, tokens = (
        float(np.mean([getattr(metrics, name) for metrics, _ in seen]))
        for name in ("ttft_p95_s", "tpot_s", "tokens_per_s")
    )
    holds = (target.ttft_s is None or ttft <= target.ttft_s) and (
        target.tpot_s is None or tpot <= target.tpot_s
    )
    batch = float(np.mean([together for _, together in seen]))
    return Load(per_s, ttft, tpot, tokens, batch, holds)


def _finite(seconds: float) -> float:
    return seconds if math.isfinite(seconds) else 0.0
