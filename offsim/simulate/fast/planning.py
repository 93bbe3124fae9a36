"""Decided and planned in compiled code, where it covers the policy."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from offsim.policy.cache import Decision
from offsim.policy.evictions import Key
from offsim.policy.policy import Policy
from offsim.simulate.clock import PS, Ints
from offsim.simulate.costs import Costs
from offsim.simulate.fast.compiled import compiled
from offsim.simulate.fast.deciding import UNLIMITED, Asked, Decided, decide
from offsim.simulate.fast.foresight import Experts, candidates_of
from offsim.simulate.fast.keys import AFTER, BEFORE, BRINGS, CACHES, FREE, KEY, LAYER, SAFE, SCORE
from offsim.simulate.plan import NONE, Ids, Plan
from offsim.simulate.planner import check_durations
from offsim.simulate.works import seconds_of
from offsim.trace import DECODE, Trace

NEVER = np.iinfo(np.int32).max
UNDECISIVE = {"codec", "bound", "bounds", "transfer"}
"""What of a policy decides nothing, unless a budget counts bytes."""
_LAST: WeakKeyDictionary[Trace, tuple[Any, Trace | None, Decided]] = WeakKeyDictionary()
"""For each trace the last decisions, and by whom: the policy and the profile."""


def covers(policy: Policy) -> bool:
    """Whether compiled code decides for this policy; else its Python classes do."""
    return policy.cache in CACHES and not policy.placed and policy.low is None


class Frame(NamedTuple):
    """The steps of a trace, before anything is decided: columns of `Plan`, and what they point to.

    Durations are those of an expert that serves 1 to `most` tokens, then before the first layer,
    before a later one and from the last one to the token, for each entry of `sizes`.

    Attributes:
        rows_to: [steps] where the tokens of each step end.
        sizes: [sizes] tokens of a step.
        earlier: [sizes] see `Costs.before_experts_s`.
        most: tokens of a step, at most.
        begin: see `Plan`.
        head: see `Plan`.
        before: see `Plan`.
    """

    rows_to: Ints
    sizes: Ints
    earlier: Ints
    most: int
    begin: Ints
    head: Ids
    before: Ids


def frame_of(trace: Trace, *, attends: bool) -> Frame:
    """The steps of a trace, one request after the other.

    Args:
        trace: the router's decisions.
        attends: whether earlier tokens count.
    """
    rows_to = step_ends(trace)
    tokens = np.diff(rows_to, prepend=0)
    if attends:  # each step has a context of its own
        earlier = tokens * trace.position[rows_to - tokens].astype(np.int64)
        sizes, size_of = tokens, np.arange(len(tokens))
    else:
        sizes, size_of = np.unique(tokens, return_inverse=True)
        earlier = np.zeros(len(sizes), np.int64)
    most = int(sizes.max())  # an expert serves a token once
    first, later, head = (most + len(sizes) * at for at in range(3))
    before = np.empty((len(tokens), trace.layers), np.int32)
    before[:] = (later + size_of)[:, None]
    before[:, 0] = first + size_of
    begin = np.zeros(len(tokens), np.int64)
    ends = (head + size_of).astype(np.int32)
    return Frame(rows_to, sizes, earlier, most, begin, ends, before.reshape(-1))


def fast_planned(
    trace: Trace, policy: Policy, costs: Costs, profile: Trace | None, frame: Frame | None = None
) -> tuple[Plan, "Log"]:
    """All steps of a trace, one request after the other; the same plan as the classes make.

    Args:
        trace: the router's decisions.
        policy: that `covers`.
        costs: of everything.
        profile: an earlier trace that a prefetcher may learn from.
        frame: of the trace, where it is known already.

    Raises:
        InputError: as for `offsim.policy.decider.decider_for`.
    """
    if frame is None:
        frame = frame_of(trace, attends=costs.attention_s != 0)
    kinds, kind_of = costs.kinds()
    kind_of = kind_of.reshape(-1)
    decided = _remembered(trace, frame.rows_to, policy, kinds.nbytes[kind_of], profile)
    seconds = (
        seconds_of(costs, "expert", np.arange(1, frame.most + 1)),
        seconds_of(costs, "first", frame.sizes, frame.earlier),
        seconds_of(costs, "before", frame.sizes, frame.earlier),
        seconds_of(costs, "head", frame.sizes),
    )
    plan = Plan(
        layers=trace.layers,
        first_load=0,
        begin=frame.begin,
        head=frame.head,
        before=frame.before,
        uses_to=decided.uses_to,
        run=decided.run,
        load=decided.load,
        demands_to=decided.demands_to,
        loads_to=decided.loads_to,
        kind=kind_of.take(decided.moved, mode="clip"),  # all are in range; to look costs more
        drops_to=decided.drops_to,
        drop=decided.drop,
        durations=np.rint(np.concatenate(seconds) * PS).astype(np.int64),
        kinds=kinds,
        recurs=True,
    )
    check_durations(plan)
    return plan, Log(decided, trace.layers, trace.info.experts_per_layer)


def step_ends(trace: Trace) -> Ints:
    """[steps] where the tokens of each step of `offsim.trace.steps_of` end."""
    starts = (np.diff(trace.request, prepend=trace.request[0] - 1) != 0) | (trace.phase == DECODE)
    return np.append(np.flatnonzero(starts)[1:], trace.tokens)


def _remembered(
    trace: Trace, rows_to: Ints, policy: Policy, nbytes: Ints, profile: Trace | None
) -> Decided:
    """`decided_for`, or what it gave last for this trace where it would give the same again.

    Codec, bound, link and machine decide nothing, unless a budget counts bytes: in a sweep over
    them the decisions are made once.
    """
    sizes = b"" if policy.prefetch_bytes is None else nbytes.tobytes()
    by = (policy.model_dump(exclude=UNDECISIVE), sizes)
    known = _LAST.get(trace)
    if known is None or known[0] != by or known[1] is not profile:
        known = by, profile, decided_for(trace, rows_to, policy, nbytes, profile)
        _LAST[trace] = known
    return known[2]


def decided_for(
    trace: Trace, rows_to: Ints, policy: Policy, nbytes: Ints, profile: Trace | None
) -> Decided:
    """All decisions of a policy that is covered.

    Args:
        trace: the router's decisions.
        rows_to: [steps] where the tokens of each step end.
        policy: that `covers`.
        nbytes: [layers * experts] bytes that are issued for each expert.
        profile: as for `fast_planned`.
    """
    layers, experts = trace.layers, trace.info.experts_per_layer
    ids = np.ascontiguousarray(trace.experts)
    cache = CACHES[policy.cache]
    slots = policy.pools(layers)
    pools = len(slots)
    keys = np.zeros((layers * experts + pools, KEY), np.int32)
    keys[:, BRINGS] = keys[:, SAFE] = NONE
    keys[:-pools, LAYER] = np.repeat(np.arange(layers), experts)
    keys[-pools:, FREE] = np.minimum(slots, experts * layers // pools)  # more is never used
    keys[:, BEFORE] = keys[:, AFTER] = np.arange(len(keys))
    next_use = np.empty((0, 0, 0), np.int32)
    if policy.cache == "belady":
        next_use = np.empty(ids.shape, np.int32)
        keys[:, SCORE] = NEVER
        look_back(ids, rows_to, next_use, keys, experts)
    asked = Asked(ids, rows_to, next_use, nbytes, *candidates_of(trace, rows_to, policy, profile))
    tokens = np.diff(rows_to, prepend=0)
    uses = int(np.minimum(tokens * trace.top_k, experts).sum()) * layers
    loads = uses + len(asked.candidates)
    lookups = len(rows_to) * layers
    rooms = {"key": uses, "run": uses, "load": uses, "uses_to": lookups}
    rooms |= {"demands_to": lookups, "loads_to": lookups}
    rooms |= dict.fromkeys(("moved", "left", "staged", "drops_to"), loads + 1)
    rooms |= {"drop": len(asked.candidates) + 1}
    decided = Decided(
        **{n: np.empty(r, np.bool_ if n == "staged" else np.int32) for n, r in rooms.items()}
    )
    budget = UNLIMITED if policy.prefetch_bytes is None else policy.prefetch_bytes
    uses, loads = decide(asked, cache, keys.reshape(-1), pools, budget, decided)
    ends = dict.fromkeys(("key", "run", "load"), uses)
    ends |= dict.fromkeys(("moved", "left", "staged", "drops_to"), loads)
    ends |= {"drop": int(decided.drops_to[loads - 1]) if loads else 0}
    return decided._replace(**{name: getattr(decided, name)[:end] for name, end in ends.items()})


@compiled
def look_back(ids: Experts, rows_to: Ints, next_use: Ids, keys: Ids, experts: int) -> None:
    """For each use the next lookup that asks for the same expert; at the end SCORE has the first.

    Args:
        ids: [tokens, layers, top_k] uint16.
        rows_to: [steps] where the tokens of each step end.
        next_use: [tokens, layers, top_k] filled.
        keys: [layers * experts, KEY] at least, with NEVER as SCORE.
        experts: of each layer.
    """
    layers, top_k = ids.shape[1], ids.shape[2]
    for back in range(len(rows_to)):
        step = len(rows_to) - 1 - back
        row = rows_to[step - 1] if step else 0
        for layer in range(layers):
            for token in range(row, rows_to[step]):
                for slot in range(top_k):
                    key = layer * experts + ids[token, layer, slot]
                    next_use[token, layer, slot] = keys[key, SCORE]
            for token in range(row, rows_to[step]):
                for slot in range(top_k):
                    key = layer * experts + ids[token, layer, slot]
                    keys[key, SCORE] = step * layers + layer


class Log(Sequence[Decision]):
    """A decision log that is made when it is read.

    Args:
        decided: the decisions as arrays.
        layers: MoE layers.
        experts: of each.
    """

    def __init__(self, decided: Decided, layers: int, experts: int) -> None:
        self._decided, self._layers, self._experts = decided, layers, experts

    def __len__(self) -> int:
        return len(self._decided.uses_to)

    def __getitem__(self, at: int) -> Decision:  # type: ignore[override]
        """The decision of one lookup."""
        return next(self._from(range(len(self))[at], 1))

    def __iter__(self) -> Iterator[Decision]:
        return self._from(0, len(self))

    def _from(self, first: int, count: int) -> Iterator[Decision]:
        d = self._decided
        use, load = (int(ends[first - 1]) if first else 0 for ends in (d.uses_to, d.loads_to))
        for lookup in range(first, first + count):
            demands, last = int(d.demands_to[lookup]), int(d.loads_to[lookup])
            used = d.load[use : d.uses_to[lookup]]
            experts = d.key[use : d.uses_to[lookup]] % self._experts
            missed = (used >= load) & (used < demands)
            misses = tuple(experts[missed].tolist())
            left = [self._left(at) for at in range(load, last)]
            staged = [e for e, out in zip(misses, d.staged[load:demands], strict=True) if out]
            yield Decision(
                lookup % self._layers,
                tuple(experts[~missed].tolist()),
                misses,
                tuple(left[: demands - load]),
                tuple(staged),
                tuple(self._key(key) for key in d.moved[demands:last].tolist()),
                tuple(left[demands - load :]),
            )
            use, load = int(d.uses_to[lookup]), last

    def _left(self, load: int) -> tuple[Key, ...]:
        key = int(self._decided.left[load])
        return () if key == NONE else (self._key(key),)

    def _key(self, key: int) -> Key:
        return divmod(key, self._experts)
