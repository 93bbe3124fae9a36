"""What was found about a policy or a codec, in sentences."""

import math
from collections.abc import Sequence

from offsim.study.breakeven import CodecBreakeven
from offsim.study.explain import Change, Explained, Foresight, Split
from offsim.study.working_set import Cliff
from offsim.units import show_bytes, show_seconds

NEGLIGIBLE = 0.005
"""Share of TPOT below which a change says nothing."""
_BLAME = {
    "compulsory": "first uses, which no cache avoids (a longer trace has fewer a token)",
    "capacity": "the working set: even the bound with these slots waits for it, so that only more "
    "slots, smaller experts or prefetching help",
    "policy": "the policy: another eviction with the same slots could avoid it",
}


def answers(found: Explained) -> list[str]:
    """One sentence or two for each question."""
    said = [blame(found.split), bottleneck(found)]
    said += [next_piece(change) for change in found.changes]
    said.append(foresight(found.foresight))
    if found.cliff is not None:
        said.append(cliff(found.cliff, found.policy.hit_rate_decode))
    return said


def blame(split: Split) -> str:
    """Whose fault the stall is."""
    total = show_seconds(split.total_s)
    if split.stall_s < NEGLIGIBLE * split.total_s:
        return f"Stall: a token takes {total} and waits for next to nothing."
    parts = {
        "compulsory": split.compulsory_s,
        "capacity": split.capacity_s,
        "policy": split.policy_s,
    }
    shares = ", ".join(f"{s / split.stall_s:.0%} {name}" for name, s in parts.items())
    most = max(parts, key=lambda name: parts[name])
    said = (
        f"Stall: of the {total} of a token, loads take {show_seconds(split.stall_s)} "
        f"({split.stall_s / split.total_s:.0%}): {shares}. Most of it is {_BLAME[most]}."
    )
    if split.policy_s < -NEGLIGIBLE * split.total_s:
        said += (
            f" The policy is {show_seconds(-split.policy_s)} a token faster than Belady, who "
            "misses least and is not always fastest."
        )
    return said


def bottleneck(found: Explained) -> str:
    """Which resource most of a decode step is spent on or waiting for."""
    metrics = found.policy
    parts = {"compute": metrics.decode_compute_s, **metrics.decode_stall_s}
    most = max(parts, key=lambda name: parts[name])
    step = sum(parts.values())
    busy = ", ".join(f"{one.resource} {one.decode:.0%}" for one in found.busy)
    doing = "is" if most == "compute" else "waits for"
    name = {"compute": "compute", "hand-over": "the hand-over between threads"}.get(
        most, f"the {most}"
    )
    said = (
        f"Bottleneck: {most}. A decode step takes {show_seconds(step)}, of which "
        f"{show_seconds(parts[most])} ({parts[most] / step:.0%}) {doing} {name}; "
        f"busy while decoding: {busy}."
    )
    lost = metrics.decode_compute_s - found.resident.decode_compute_s
    if lost > NEGLIGIBLE * step:
        said += (
            f" Compute takes {show_seconds(lost)} longer than with every expert resident: it asks "
            "for loads, decoding slows it, or its caches are cold."
        )
    return said


def next_piece(change: Change) -> str:
    """What one more piece of a resource brings."""
    begin = f"Next {change.resource}: {change.what}"
    if change.before_s == change.tpot_s:
        return f"{begin}; TPOT stays the same."
    way = "shorter" if change.saved_s > 0 else "longer"
    if change.resource == "compression":
        begin += ", decoded in the same time,"
    saved = show_seconds(abs(change.saved_s))
    return f"{begin} makes a token {saved} ({abs(change.saved):.1%}) {way}."


def foresight(found: Foresight) -> str:
    """What prefetching brings."""
    saved = show_seconds(abs(found.saved_s))
    share = f"{abs(found.saved_s) / found.without_s:.1%}"
    way = "save" if found.saved_s >= 0 else "cost"
    if found.hypothetical:
        return (
            f"Prefetch: none; a perfect oracle, one layer ahead and without a budget, would {way} "
            f"{saved} a token ({share})."
        )
    if math.isnan(found.precision):
        return f"Prefetch: {found.prefetcher} issued nothing."
    return (
        f"Prefetch: {found.prefetcher} {way}s {saved} a token ({share}) against none; "
        f"{found.precision:.0%} of the bytes that it issued were asked for, and "
        f"{found.late_rate:.1%} of lookups found their expert still on its way."
    )


def cliff(found: Cliff, hit_rate: float) -> str:
    """A warning about one LRU pool for all layers."""
    where = "below" if found.below else "close to"
    what = "each token sweeps it" if found.below else "a smaller one would be swept by each token"
    return (
        f"Warning: the LRU pool holds {found.pool} experts and is {where} the {found.cycle} that "
        f"one token asks for over all layers: {what}; hit rate in decoding {hit_rate:.1%}. "
        f"The cliff ends at {found.cycle} experts in all."
    )


def speed(bytes_per_s: float) -> str:
    """A bandwidth as a short text, such as `44.7 GB/s`."""
    if bytes_per_s >= 1e12:
        return f"{bytes_per_s / 1e12:.3g} TB/s"
    return f"{show_bytes(bytes_per_s)}/s"


def bandwidth_verdict(one: CodecBreakeven) -> str:
    """Over which bandwidths a codec is faster than raw."""
    if not one.crossings:
        return one.verdict
    parts = []
    since: float | None = None
    for crossing in one.crossings:
        if not crossing.faster_below:
            since = crossing.bytes_per_s
        elif since is None:
            parts.append(f"below {speed(crossing.bytes_per_s)}")
        else:
            parts.append(f"from {speed(since)} to {speed(crossing.bytes_per_s)}")
            since = None
    if since is not None:
        parts.append(f"above {speed(since)}")
    return ", ".join(parts)


def slots_verdict(one: CodecBreakeven, slots: Sequence[int]) -> str:
    """Up to how many slots a codec is faster than raw, of those tried."""
    if one.largest_slots is None:
        return "never faster"
    tried = [count for count in slots if count <= one.largest_slots]
    faster = [count for count in tried if count in one.faster_slots]
    if one.largest_slots == slots[-1] and len(faster) == len(tried):
        return "always faster"
    said = f"faster up to {one.largest_slots}"
    return said if len(faster) == len(tried) else f"{said}, not at all of fewer"
