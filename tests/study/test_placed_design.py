"""Policies that place experts."""

from collections import Counter

import pytest

from offsim.codec import codec_named
from offsim.runtime.run import check_placement
from offsim.study.design import PACES, PARTS
from offsim.study.placed_design import PLACED_PARTS, PlacedPart
from tests.study.test_design import FACTS


@pytest.mark.parametrize("part", PLACED_PARTS, ids=lambda part: part.name)
def test_two_policies_of_each_placement_that_can_be_run(part: PlacedPart) -> None:
    scenarios = part.scenarios(FACTS, 1e6)
    assert scenarios == part.scenarios(FACTS, 1e6)
    assert len(scenarios) == len(set(map(str, scenarios))) == 12
    assert Counter(one.link_bytes_per_s for one in scenarios) == dict.fromkeys(
        (1e6 * pace for pace in PACES), 4
    )
    for scenario in scenarios:
        assert scenario.policy.placed
        assert scenario.policy.slots in (2, 4)
        check_placement(scenario.policy, codec_named(scenario.policy.codec))
    assert {one.policy.key for one in scenarios} == set(part.storages)
    assert part.effort.placed


def test_their_names_are_not_those_of_the_design() -> None:
    assert len({part.name for part in (*PARTS, *PLACED_PARTS)}) == len(PARTS) + len(PLACED_PARTS)
