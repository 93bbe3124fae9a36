"""Why a policy takes the time that it takes, and what would help; docs/answers.md."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from offsim.errors import InputError
from offsim.policy.policy import HALF
from offsim.policy.prefetchers.registry import NONE
from offsim.policy.registry import eviction_named
from offsim.record import Metrics
from offsim.record.events import Label
from offsim.study.busy import Busy, busy_of
from offsim.study.case import Case
from offsim.study.working_set import Cliff, WorkingSet, cliff_of, working_sets
from offsim.units import GB, MB, show_bytes

GIB = 1 << 30
SLOW = 10 * GB
"""A link below this, bytes/s, is made a tenth faster instead of 1 GB/s."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time of an output token goes, s; the parts add up to TPOT.

    Stall here is everything that loads cost: waits, asking for them, and what decoding and cold
    caches take from compute.

    Attributes:
        compute_s: with every expert resident.
        compulsory_s: stall that an infinite cache would leave: the first use of each expert.
        capacity_s: what Belady adds to that with the policy's slots: no eviction could avoid it.
        policy_s: what the policy adds to that; below 0 where it beats Belady, who misses least and
            is not always fastest.
    """

    compute_s: float
    compulsory_s: float
    capacity_s: float
    policy_s: float

    @property
    def stall_s(self) -> float:
        """All three kinds."""
        return self.compulsory_s + self.capacity_s + self.policy_s

    @property
    def total_s(self) -> float:
        """TPOT."""
        return self.compute_s + self.stall_s


@dataclass(frozen=True, slots=True)
class Change:
    """What one more piece of a resource brings.

    Attributes:
        resource: `cache`, `link` or `compression`.
        what: what was really added or taken away; why nothing, where nothing could be.
        before_s: TPOT without it.
        tpot_s: TPOT with it.
    """

    resource: str
    what: str
    before_s: float
    tpot_s: float

    @property
    def saved_s(self) -> float:
        """Of each token; below 0 where it got slower."""
        return self.before_s - self.tpot_s

    @property
    def saved(self) -> float:
        """The same as a share of TPOT."""
        return self.saved_s / self.before_s


@dataclass(frozen=True, slots=True)
class Foresight:
    """What fetching ahead brings.

    Attributes:
        prefetcher: the policy's own, or `oracle` where it has none.
        hypothetical: whether the policy has none.
        without_s: TPOT without prefetching.
        with_s: TPOT with it.
        precision: bytes that were asked for before they had to leave, over bytes issued ahead; nan
            where none were issued.
        late_rate: share of lookups that found their expert still on its way.
    """

    prefetcher: str
    hypothetical: bool
    without_s: float
    with_s: float
    precision: float
    late_rate: float

    @property
    def saved_s(self) -> float:
        """Of each token; below 0 where it got slower."""
        return self.without_s - self.with_s


@dataclass(frozen=True)
class Explained:
    """Answers about one policy.

    Attributes:
        label: of every time in it.
        policy: its metrics.
        belady: with the same slots and the cache that knows the future: the bound.
        infinite: with room for every expert.
        resident: with every expert there from the start: compute alone.
        split: where the time of a token goes.
        working_sets: see there; slots are a layer's.
        cliff: where one LRU pool for all layers is too small, or close to it.
        busy: share of the time in which each resource worked.
        changes: what the next piece of each resource brings.
        foresight: what prefetching brings.
    """

    label: Label
    policy: Metrics
    belady: Metrics
    infinite: Metrics
    resident: Metrics
    split: Split
    working_sets: list[WorkingSet]
    cliff: Cliff | None
    busy: list[Busy]
    changes: list[Change]
    foresight: Foresight


def explain(case: Case, progress: Progress = lambda what, share: None) -> Explained:
    """Simulate a policy beside its bounds and with a little more of everything.

    Args:
        case: trace, policy and machine. Only the eviction differs between the policy and its
            bounds; a prefetcher stays.
        progress: told what is simulated next, and the share done, 0..1.

    Raises:
        InputError: the cache is an oracle, no request has two output tokens, or as for `predict`.
    """
    if eviction_named(case.policy.cache).oracle:
        raise InputError(
            f"cache {case.policy.cache} is the bound that policies are held against; "
            "explain one that can be built"
        )
    progress("the policy", 0.0)
    metrics = case.predict()
    if np.isnan(metrics.tpot_s):
        raise InputError("no request of the trace has two output tokens, so that there is no TPOT")
    progress("belady", 0.1)
    belady = case.with_policy(cache="belady").predict()
    progress("an infinite cache", 0.3)
    infinite = _infinite(case).predict()
    progress("everything resident", 0.4)
    resident = case.without_loads().predict()
    progress("loads and waits", 0.45)
    busy = busy_of(case.record())
    progress("the next piece of everything", 0.6)
    changes = changes_of(case, metrics.tpot_s)
    progress("prefetching", 0.85)
    foresight = foresight_of(case, metrics)
    return Explained(
        label=metrics.label,
        policy=metrics,
        belady=belady,
        infinite=infinite,
        resident=resident,
        split=Split(
            compute_s=resident.tpot_s,
            compulsory_s=infinite.tpot_s - resident.tpot_s,
            capacity_s=belady.tpot_s - infinite.tpot_s,
            policy_s=metrics.tpot_s - belady.tpot_s,
        ),
        working_sets=working_sets(case.trace),
        cliff=cliff_of(case.policy, case.trace),
        busy=busy,
        changes=changes,
        foresight=foresight,
    )


def _infinite(case: Case) -> Case:
    """The same with room for every expert, in each tier where there are two."""
    slots = 2 * case.experts if case.policy.keep == "both" else case.experts
    return case.with_policy(slots=slots, extra=0, scope="layer", decoded_share=HALF)


def _most_slots(case: Case) -> int:
    """Slots of a layer beyond which there is nothing more to hold."""
    share = case.policy.decoded_share if case.policy.keep == "both" else 1
    return math.ceil(case.experts / share) if share else case.experts


def changes_of(case: Case, tpot_s: float) -> list[Change]:
    """What a GiB of cache, a GB/s of link and a bit a weight bring.

    Args:
        case: trace, policy and machine.
        tpot_s: what it takes as it is.
    """
    return [_more_cache(case, tpot_s), _faster_link(case, tpot_s), _fewer_bits(case, tpot_s)]


def _more_cache(case: Case, tpot_s: float) -> Change:
    """A GiB of decoded experts in whole slots of each layer, one at least."""
    slots, extra, each = case.policy.slots, case.policy.extra, case.calibration.model.expert_bytes
    layer, most = case.trace.layers * each, _most_slots(case)
    added = min(max(1, GIB // layer), most - slots)
    if added <= 0:
        return Change("cache", "nothing: every expert has a slot", tpot_s, tpot_s)
    nbytes, full = added * layer, ""
    if slots + added == most:
        nbytes, full, extra = nbytes - extra * each, ", all that there are", 0
    size = f"{nbytes / GIB:.3g} GiB" if nbytes > 0.1 * GIB else show_bytes(nbytes)
    what = f"+{_count(added, 'slot')} a layer{full} ({size} in all)"
    more = case.with_policy(slots=slots + added, extra=extra)
    return Change("cache", what, tpot_s, more.predict().tpot_s)


def _faster_link(case: Case, tpot_s: float) -> Change:
    """1 GB/s, or a tenth of a slow link."""
    old = case.bandwidth
    new, more = (1.1 * old, "+10 %") if old < SLOW else (old + GB, "+1 GB/s")
    unit, name = (MB, "MB") if old < GB else (GB, "GB")
    what = f"{more} ({old / unit:.4g} to {new / unit:.4g} {name}/s)"
    return Change("link", what, tpot_s, case.at_bandwidth(new).predict().tpot_s)


def _fewer_bits(case: Case, tpot_s: float) -> Change:
    """A bit a weight, of blobs that are decoded as fast as before."""
    if case.figures.placement == "host":
        what = "nothing: the host decodes, so that the stored bytes cross the link"
        return Change("compression", what, tpot_s, tpot_s)
    smaller = case.with_fewer_bits(1)
    mean = [float(np.mean(one.figures.blob_bytes)) for one in (case, smaller)]
    model = case.calibration.model
    bits = [8 * size / (3 * model.hidden * model.width) for size in mean]
    less = _count(bits[0] - bits[1], "bit")
    what = f"{less} a weight less ({bits[0]:.3g} to {bits[1]:.3g})"
    return Change("compression", what, tpot_s, smaller.predict().tpot_s)


def _count(number: float, what: str) -> str:
    text = f"{number:.3g}"
    return f"{text} {what}" if text == "1" else f"{text} {what}s"


def foresight_of(case: Case, metrics: Metrics) -> Foresight:
    """What the policy's prefetcher brings, or what a perfect one would.

    Args:
        case: trace, policy and machine.
        metrics: of the policy.
    """
    own = case.policy.prefetch
    if own == NONE:
        ahead = {"prefetch": "oracle", "distance": 1, "prefetch_bytes": None}
        before, after = metrics, case.with_policy(**ahead).predict()
    else:
        before, after = case.with_policy(prefetch=NONE).predict(), metrics
    issued = after.prefetch_bytes
    return Foresight(
        prefetcher="oracle" if own == NONE else own,
        hypothetical=own == NONE,
        without_s=before.tpot_s,
        with_s=after.tpot_s,
        precision=1 - after.wasted_bytes / issued if issued else float("nan"),
        late_rate=after.late_rate,
    )
