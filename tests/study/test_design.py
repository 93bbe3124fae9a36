"""The fixed design of policies."""

from collections import Counter

import pytest

from offsim.calibration.schema import ModelFacts
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.study.design import CACHES, PACES, PARTS, POLICIES, PREFETCHES, SHARES, Part

FACTS = ModelFacts(
    name="m", layers=3, experts=8, top_k=2, hidden=10, width=20, dtype_bytes=2, stored_bytes=1000
)


def test_the_design_has_many_policies_and_never_changes() -> None:
    assert len(PARTS) * POLICIES >= 60
    for part in PARTS:
        first, again = (part.scenarios(FACTS, 1e6) for _ in range(2))
        assert first == again
        assert len(first) == POLICIES
        assert len(set(map(str, first))) == POLICIES
    assert len({str(part.scenarios(FACTS, 1e6)) for part in PARTS}) == len(PARTS)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_choice_is_made_equally_often(part: Part) -> None:
    scenarios = part.scenarios(FACTS, 1e6)
    policies = [scenario.policy for scenario in scenarios]
    counts = {
        "storages": (Counter(policy.key for policy in policies), part.storages),
        "caches": (Counter(policy.cache for policy in policies), CACHES),
        "slots": (Counter(policy.slots for policy in policies), SHARES),
        "links": (Counter(one.link_bytes_per_s for one in scenarios), PACES),
        "chunks": (Counter(policy.transfer.chunk_bytes for policy in policies), (None, 250)),
    }
    for found, levels in counts.values():
        assert set(found.values()) == {POLICIES // len(levels)}
    ahead = Counter((policy.prefetch, policy.distance) for policy in policies)
    assert ahead == Counter(PREFETCHES[n % len(PREFETCHES)] for n in range(POLICIES))


def test_every_prefetcher_of_the_design_can_be_run() -> None:
    kinds = [prefetcher_named(name) for name, _ in PREFETCHES]
    assert not any(kind is not None and kind.oracle for kind in kinds)
