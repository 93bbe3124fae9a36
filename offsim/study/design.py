"""The policies by which the fidelity of predictions is judged: fixed in advance, by part.

A part is a model with its policies. No policy here is used to calibrate, and no prompt either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from offsim.calibration.schema import ModelFacts
from offsim.codec import codec_named
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.study.calibrate import FULL, QUICK, Effort
from offsim.study.check import Scenario
from offsim.study.prepare import Key, recorded
from offsim.study.study import MODEL, embedded
from offsim.study.subject import DrivenSubject, Subject
from offsim.study.workload import prompts
from offsim.testbed.generated import generated_model
from offsim.trace import Trace

Level = TypeVar("Level")
POLICIES = 24
"""Of each part."""
CACHES = ("lru", "lfu", "s3-fifo", "fifo", "weight", "lfu-aging")
PREFETCHES = (
    ("none", 1),
    ("gate", 1),
    ("none", 1),
    ("gate", 2),
    ("last-token", 1),
    ("none", 1),
    ("transition", 1),
    ("popularity", 1),
)
"""Prefetchers and distances; nothing is prefetched in three of eight policies."""
SHARES = (0.25, 0.5, 0.75)
"""Of the experts of a layer that have a slot."""
CHUNKS = (1, 4)
"""Parts of equal size in which a load moves, at least."""
PACES = (0.5, 1.0, 2.0)
"""Link speeds, as multiples of the pace that imitates the reference machine."""
ROUTING_SEED, PROFILE_SEED, REQUESTS_SEED = 31, 47, 61
"""Of the prompts whose routing drives generated experts, of those that profiles are made from, and
of those that are checked."""
LOOKAHEAD = max(distance for name, distance in PREFETCHES if name == "gate")


@dataclass(frozen=True)
class Part:
    """A model, and how much is run on it.

    Attributes:
        name: of the part.
        storages: codecs and bounds.
        subject: makes the model; takes a while.
        effort: of the calibration, in rounds.
        requests: that are checked.
        tokens: of each.
        repeats: of each policy after each round but the first.
    """

    name: str
    storages: tuple[Key, ...]
    subject: Callable[[], Subject[Any]]
    effort: Effort
    requests: int
    tokens: int
    repeats: int

    def scenarios(self, facts: ModelFacts, bytes_per_s: float) -> list[Scenario]:
        """The policies of this part: each level of each choice equally often, put together by lot.

        Args:
            facts: of the model.
            bytes_per_s: of the link; the paces are multiples of it.
        """
        rng = Random(f"fidelity/{self.name}")
        columns = [
            _dealt(levels, rng)
            for levels in (self.storages, CACHES, PREFETCHES, SHARES, CHUNKS, PACES)
        ]
        made = []
        for storage, cache, (prefetch, distance), share, chunks, factor in zip(
            *columns, strict=True
        ):
            chunk = None if chunks == 1 else -(-facts.expert_bytes // chunks)
            policy = Policy(
                codec=storage[0],
                bound=storage[1],
                cache=cache,
                slots=max(1, round(share * facts.experts)),
                prefetch=prefetch,
                distance=distance,
                transfer=Transfer(chunk_bytes=chunk),
            )
            made.append(Scenario(policy, factor * bytes_per_s))
        return made


def _dealt(levels: Sequence[Level], rng: Random) -> list[Level]:
    """The levels again and again, as many as there are policies, shuffled."""
    many = [levels[number % len(levels)] for number in range(POLICIES)]
    rng.shuffle(many)
    return many


def routing() -> Trace:
    """What the embedded model's router does, with its gates asked ahead."""
    subject = embedded()
    store = subject.store(codec_named("raw"), 0.0)
    asked = prompts(8, ROUTING_SEED)
    return recorded(subject.model, MODEL, store, asked, 24, LOOKAHEAD).trace


def driven(hidden: int, width: int) -> DrivenSubject:
    """Generated experts of another size under the routing of the embedded model."""
    trace = routing()
    shape = (trace.layers, trace.info.experts_per_layer, hidden, width)
    return DrivenSubject(generated_model(shape), trace)


SMALL = (("raw", 0.0), ("cuszp", 2.0**-5), ("cuszp", 2.0**-4), ("sz3", 2.0**-5))
"""Of the embedded model, whose weights are of the order of 0.05."""
LARGE = (("raw", 0.0), ("cuszp", 2.0**-8), ("cuszp", 2.0**-7))
"""Of generated experts, whose weights have a standard deviation of 0.02."""
PARTS = (
    Part("embedded", SMALL, embedded, replace(FULL, rounds=10), 2, 20, 3),
    Part("experts-1.6MB", LARGE, lambda: driven(512, 512), replace(FULL, tokens=16), 2, 20, 2),
    Part("experts-17MB", LARGE, lambda: driven(1024, 2816), replace(QUICK, rounds=8), 1, 12, 1),
)
"""The embedded model as it is, and its routing on experts of 1.6 and 17 MB."""
