"""What `offsim optimize --prove` found, as a file: every way to store the experts, both ways."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from offsim.accuracy.sensitivity_parts import Ranged
from offsim.calibration.schema import Machine, ModelFacts
from offsim.policy.bounds import Bounds, Strict
from offsim.study.optimize.around import Around
from offsim.study.optimize.by_task import ByTask
from offsim.study.optimize.latency import Both

VERSION = 1
Kind = Literal["raw", "uniform", "zones", "optimised", "adaptive", "other"]
"""No compression; one bound everywhere; one in each third of the layers; the answer; two bounds,
the looser one for misses of low router weight; or another codec that was calibrated."""


class Way(Strict):
    """One way to store the experts.

    Attributes:
        name: for people.
        kind: of its bounds.
        codec: by name; `bounds` may name others for some places.
        bounds: of every matrix; None where nothing is lost, or for another codec.
        tpot: time per output token.
        ttft: time to the first token.
        link_bytes: that crossed the link in a run.
        kl_estimated: divergence from the model without an error by the sensitivity, nats a token,
            ESTIMATED; None where that does not say, as for other codecs that it did not measure.
        kl: the same, MEASURED on other texts.
        ica: share of items answered rightly, MEASURED; None where it was not asked.
        ica_change: from the model without an error, paired by item, MEASURED; likewise.
        decisions_equal: whether all runs decided as was simulated. Where weights depend on the run,
            so does the routing, of which the simulation has that of the tighter bound alone.
    """

    name: str
    kind: Kind
    codec: str
    bounds: Bounds | None
    tpot: Both
    ttft: Both
    link_bytes: int
    kl_estimated: Ranged | None
    kl: Ranged
    ica: float | None
    ica_change: Ranged | None
    decisions_equal: bool


class Proof(Strict):
    """An answer of `offsim optimize`, run and evaluated.

    Attributes:
        offsim: version.
        machine: that ran it.
        model: whose experts.
        budget: as it was asked for.
        nats: the divergence that goes with it, nats a token.
        goal: the latency that is least.
        by: what has a bound, or a codec, of its own.
        policy: of all ways beside codec and bounds, in words.
        link_bytes_per_s: pace of the link.
        exact: whether all choices were simulated.
        gap: share by which a faster choice could be faster, as the search has it.
        simulations: of the search.
        requests: that were run.
        tokens: written for each.
        sequences: of text that were read.
        items: that were asked, together.
        ways: to store the experts.
        around: what the answer depends on, SIMULATED.
        by_task: a bound for each task; None where the ladder has fewer than two bounds.
    """

    format: Literal["offsim-proof"] = "offsim-proof"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    offsim: str
    machine: Machine
    model: ModelFacts
    budget: str
    nats: float
    goal: Literal["tpot", "ttft"]
    by: Literal["layer", "matrix", "expert"]
    policy: str
    link_bytes_per_s: float
    exact: bool
    gap: float
    simulations: int
    requests: int
    tokens: int
    sequences: int
    items: int
    ways: list[Way]
    around: Around | None = None
    by_task: ByTask | None = None

    @property
    def answer(self) -> Way:
        """The optimised one."""
        return next(way for way in self.ways if way.kind == "optimised")

    def latency(self, way: Way) -> Both:
        """The latency that was to be least."""
        return way.tpot if self.goal == "tpot" else way.ttft

    def fastest_of(self, *kinds: Kind) -> Way | None:
        """The fastest by MEASURED latency of those that lose no more than the answer, MEASURED."""
        ways = [way for way in self.ways if way.kind in kinds]
        within = [way for way in ways if way.kl.mean <= self.answer.kl.mean]
        return min(within, key=lambda way: self.latency(way).measured, default=None)


@dataclass(frozen=True)
class Gain:
    """The answer against a single bound of equal loss, MEASURED or predicted.

    Attributes:
        seconds: what that bound takes: between the two of the ladder that lose less and more, by
            the logarithms of their losses.
        share: of that by which the answer is faster; negative where it is slower.
        low: 10th percentile of the share over repeats; the share itself where it is predicted.
        high: 90th percentile, likewise.
        between: names of the two.
    """

    seconds: float
    share: float
    low: float
    high: float
    between: tuple[str, str]


def gain(proof: Proof, *, predicted: bool = False) -> Gain | None:
    """How much faster the answer is than single bounds of equal loss.

    None where no two single bounds of the ladder lose less and more than the answer.

    Args:
        proof: of the answer.
        predicted: by simulated latencies and estimated losses, in place of measured ones.
    """

    def loss(way: Way) -> float:
        return _estimated(way) if predicted else way.kl.mean

    def repeats(way: Way) -> list[float]:
        both = proof.latency(way)
        return [both.simulated] if predicted else both.repeats

    def latency(way: Way) -> float:
        both = proof.latency(way)
        return both.simulated if predicted else both.measured

    ours = proof.answer
    single = sorted((way for way in proof.ways if way.kind == "uniform"), key=loss)
    at = int(np.searchsorted([loss(way) for way in single], loss(ours)))
    if not 0 < at < len(single) or loss(single[at - 1]) <= 0:
        return None
    less, more = single[at - 1 : at + 1]
    share = float(np.log(loss(ours) / loss(less)) / np.log(loss(more) / loss(less)))

    def between(one: float, other: float) -> float:
        return one + share * (other - one)

    seconds = between(latency(less), latency(more))
    triples = zip(repeats(ours), repeats(less), repeats(more), strict=True)
    low, high = np.percentile([1 - mine / between(*pair) for mine, *pair in triples], (10, 90))
    return Gain(
        seconds=seconds,
        share=1 - latency(ours) / seconds,
        low=float(low),
        high=float(high),
        between=(less.name, more.name),
    )


def _estimated(way: Way) -> float:
    """The loss that was estimated, nats a token; NaN where it was not."""
    return np.nan if way.kl_estimated is None else way.kl_estimated.mean


def proof_table(proof: Proof) -> pd.DataFrame:
    """A row a way to store the experts; seconds, bytes, nats a token and shares of items."""

    def row(way: Way) -> dict[str, object]:
        found: dict[str, object] = {"stored": way.name, "kind": way.kind, "codec": way.codec}
        for name, both in (("tpot", way.tpot), ("ttft", way.ttft)):
            found |= {
                f"{name}_simulated": both.simulated,
                f"{name}_measured": both.measured,
                f"{name}_error": both.simulated / both.measured - 1,
            }
        found["link_bytes"] = way.link_bytes
        for name, ranged in (
            ("kl_estimated", way.kl_estimated),
            ("kl_measured", way.kl),
            ("ica_change", way.ica_change),
        ):
            for end in ("mean", "low", "high"):
                found[f"{name}_{end}"] = np.nan if ranged is None else getattr(ranged, end)
        return found | {"ica_measured": way.ica, "decisions_equal": way.decisions_equal}

    return pd.DataFrame(map(row, proof.ways))
