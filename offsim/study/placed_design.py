"""Policies that place experts, by which predictions are judged: fixed in advance, like the design.

A part has two policies of each placement: a quarter and half of the experts have a slot, and the
links are dealt by lot. They are apart from the design, whose policies keep decoded experts over a
host memory that has all blobs.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

from offsim.calibration.schema import ModelFacts
from offsim.policy.policy import Policy
from offsim.study.calibrate import FULL
from offsim.study.check import Scenario
from offsim.study.design import PACES, Part, driven
from offsim.study.prepare import Key
from offsim.study.study import embedded

SHARES = (0.25, 0.5)
"""Of the experts of a layer that have a slot."""
RAW_SHARE, BLOB_SHARE = 0.5, 0.15
"""Of the bytes of all experts, as stored, that host memory holds: of plain ones about half, and of
blobs of a third of the size about half too."""
ALWAYS = 1 << 20
"""Tokens of an expert up to which the host computes it, more than a prompt has."""


@dataclass(frozen=True)
class PlacedPart(Part):
    """A model, raw and under one codec and bound, whose policies place experts."""

    def scenarios(self, facts: ModelFacts, bytes_per_s: float) -> list[Scenario]:
        """Two policies of each placement; arguments as of `Part.scenarios`."""
        raw, coded = self.storages
        bytes_of_all = facts.layers * facts.experts * facts.expert_bytes
        placements: list[tuple[Key, dict[str, Any]]] = [
            (raw, {"host_bytes": round(RAW_SHARE * bytes_of_all)}),
            (coded, {"host_bytes": round(BLOB_SHARE * bytes_of_all)}),
            (raw, {"host_tokens": 1}),
            (raw, {"host_tokens": ALWAYS}),
            (coded, {"keep": "compressed"}),
            (coded, {"keep": "both"}),
        ]
        pairs = [(placement, share) for placement in placements for share in SHARES]
        paces = [PACES[number % len(PACES)] for number in range(len(pairs))]
        Random(f"fidelity/{self.name}").shuffle(paces)
        made = []
        for (((codec, bound), placement), share), pace in zip(pairs, paces, strict=True):
            slots = max(1, round(share * facts.experts))
            policy = Policy(codec=codec, bound=bound, slots=slots, **placement)
            made.append(Scenario(policy, pace * bytes_per_s))
        return made


EMBEDDED = (("raw", 0.0), ("cuszp", 2.0**-5))
GENERATED = (("raw", 0.0), ("cuszp", 2.0**-8))
PLACED = replace(FULL, placed=True)
PLACED_PARTS = (
    PlacedPart("placed-embedded", EMBEDDED, embedded, replace(PLACED, rounds=10), 2, 20, 1),
    PlacedPart(
        "placed-1.6MB", GENERATED, lambda: driven(512, 512), replace(PLACED, tokens=16), 2, 20, 1
    ),
)
"""The embedded model, and its routing on experts of 1.6 MB."""
