import pytest
from pydantic import ValidationError

from offsim.codec.bounds import Bound
from offsim.policy.bound_kinds import by_layer, zones
from offsim.policy.policy import Policy


def test_text() -> None:
    assert str(Policy()) == "raw, lru 4"
    assert str(Policy(codec="cuszp", bound=1e-3, slots=2)) == "cuszp 0.001, lru 2"
    assert str(Policy(scope="global")) == "raw, lru 4, one pool"
    assert str(Policy(scope="global", extra=5)) == "raw, lru 4, one pool with 5 more"


def test_pools() -> None:
    assert Policy(slots=2).pools(3) == [2, 2, 2]
    assert Policy(slots=2, scope="global").pools(3) == [6]
    assert Policy(slots=0, scope="global", extra=2).pools(3) == [2]


def test_text_says_what_is_kept_in_two_tiers() -> None:
    policy = Policy(codec="cuszp", bound=0.5, keep="both", decoded_share=0.25, host_bytes=9)
    said = "0.25 kept decoded and the rest compressed, 9 B of host memory"
    assert str(policy) == f"cuszp 0.5, lru 4, {said}"


def test_text_names_the_prefetcher_where_there_is_one() -> None:
    assert str(Policy(distance=2, prefetch_bytes=7, recall=0.5)) == "raw, lru 4"
    assert str(Policy(prefetch="gate")) == "raw, lru 4, gate 1 ahead"
    bounded = Policy(prefetch="transition", distance=2, prefetch_bytes=0)
    assert str(bounded) == "raw, lru 4, transition 2 ahead, 0 B a step"
    noisy = Policy(prefetch="noisy-oracle", precision=0.5, recall=0.25)
    assert str(noisy) == "raw, lru 4, noisy-oracle 1 ahead at precision 0.5 and recall 0.25"


@pytest.mark.parametrize(
    "fields",
    [
        {"distance": 0},
        {"prefetch_bytes": -1},
        {"precision": 0.0},
        {"precision": 1.1},
        {"recall": -0.1},
        {"recall": float("nan")},
        {"bound": -1.0},
        {"bound": float("nan")},
        {"bound": float("inf")},
        {"slots": -1},
        {"extra": 1},
        {"extra": -1, "scope": "global"},
        {"slot": 1},
    ],
    ids=str,
)
def test_fields_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Policy(**fields)


def test_equal_policies_are_one_key() -> None:
    assert len({Policy(slots=3), Policy(slots=3), Policy(slots=2)}) == 2


def test_a_table_of_bounds_is_a_short_text_and_a_key_of_its_own() -> None:
    table = zones(4, Bound(0.01), Bound(0.02), Bound(0.03))
    policy = Policy(codec="cuszp", bounds=table, slots=2)
    assert str(policy) == "cuszp bounds 3 rules, lru 2"
    assert policy.storage == "cuszp bounds 3 rules"
    assert policy.key == (f"cuszp bounds 3 rules {table.digest}", 0.0)
    other = by_layer([Bound(0.01), Bound(0.02), Bound(0.04)])
    assert policy.key != policy.model_copy(update={"bounds": other}).key
    assert len({policy, Policy(codec="cuszp", bounds=table, slots=2), Policy(slots=2)}) == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"codec": "cuszp", "bound": 0.5}, "bound 0.5 beside a table of bounds"),
        ({"codec": "raw"}, "codec raw takes no bounds"),
        ({"codec": "rtn-int8"}, "codec rtn-int8 takes no bounds"),
        ({"codec": "zip"}, "zip"),
    ],
)
def test_a_table_that_cannot_be_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Policy(**fields, bounds=by_layer([Bound(0.01), Bound(0.02)]))
