import math

import pytest

from offsim.study.answers import blame, cliff, foresight, next_piece
from offsim.study.explain import Change, Foresight, Split
from offsim.study.working_set import Cliff


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((1.0, 0.0, 0.001, 0.0), "waits for next to nothing"),
        ((1.0, 2.0, 0.5, 0.5), "67% compulsory, 17% capacity, 17% policy. Most of it is first"),
        ((1.0, 0.5, 2.0, 0.5), "Most of it is the working set"),
        ((1.0, 0.5, 0.5, 2.0), "Most of it is the policy"),
        ((1.0, 0.5, 2.0, -0.5), "The policy is 500 ms a token faster than Belady"),
    ],
)
def test_whose_fault_the_stall_is(parts: tuple[float, float, float, float], says: str) -> None:
    assert says in blame(Split(*parts))


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (1.5, "Next link: +1 GB/s makes a token 500 ms (25.0%) shorter."),
        (2.5, "Next link: +1 GB/s makes a token 500 ms (25.0%) longer."),
        (2.0, "Next link: +1 GB/s; TPOT stays the same."),
    ],
)
def test_what_the_next_piece_brings(after: float, says: str) -> None:
    assert next_piece(Change("link", "+1 GB/s", 2.0, after)) == says


def test_what_prefetching_brings() -> None:
    better = Foresight("gate", False, 2.0, 1.5, 0.8, 0.1)
    assert foresight(better) == (
        "Prefetch: gate saves 500 ms a token (25.0%) against none; 80% of the bytes that it issued "
        "were asked for, and 10.0% of lookups found their expert still on its way."
    )
    assert "gate costs 1 s a token" in foresight(Foresight("gate", False, 2.0, 3.0, 0.1, 0.1))
    assert "would cost 1 s" in foresight(Foresight("oracle", True, 2.0, 3.0, 1.0, 0.1))
    assert "issued nothing" in foresight(Foresight("gate", False, 2.0, 2.0, math.nan, 0.0))


def test_the_warning_says_where_the_cliff_ends() -> None:
    below, near = cliff(Cliff(63, 64), 0.0), cliff(Cliff(70, 64), 0.1)
    assert "holds 63 experts and is below the 64" in below
    assert "holds 70 experts and is close to the 64" in near
    assert "hit rate in decoding 10.0%. The cliff ends at 64 experts in all." in near
