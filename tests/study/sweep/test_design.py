from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawing
from hypothesis import strategies as st

from offsim.errors import InputError
from offsim.study.sweep.design import count_of, fields_of, given
from offsim.study.sweep.spec import SweepSpec

from .made import BASE


def spec(*vary: dict[str, Any], **fixed: Any) -> SweepSpec:
    return SweepSpec.model_validate({**BASE, "fixed": fixed, "vary": list(vary)})


def sampled(count: int, fields: dict[str, Any], **more: Any) -> SweepSpec:
    return spec({"sample": {"count": count, "fields": fields, **more}})


def test_without_variation_there_is_one() -> None:
    assert list(given(spec(a=1))) == [{"a": 1}]


def test_each_way_goes_with_each_and_the_last_is_the_fastest() -> None:
    made = spec({"grid": {"a": [1, 2], "b": [3, 4]}}, {"list": [{"c": 5}, {"b": 6}]})
    assert list(given(made)) == [
        {"a": 1, "b": 3, "c": 5},
        {"a": 1, "b": 6},
        {"a": 1, "b": 4, "c": 5},
        {"a": 1, "b": 6},
        {"a": 2, "b": 3, "c": 5},
        {"a": 2, "b": 6},
        {"a": 2, "b": 4, "c": 5},
        {"a": 2, "b": 6},
    ]
    assert count_of(made) == 8
    assert fields_of(made) == ["a", "b", "c"]


def test_a_hypercube_has_one_in_each_slice() -> None:
    fields = {"a": {"low": 0, "high": 10}, "b": {"low": 1, "high": 1024, "scale": "log"}}
    found = list(given(sampled(10, fields, seed=3)))
    assert sorted(int(one["a"]) for one in found) == list(range(10))  # type: ignore[arg-type]
    assert sorted(int(np.log2(one["b"])) for one in found) == list(range(10))  # type: ignore[arg-type]
    assert all(float(f"{one['a']:.6g}") == one["a"] for one in found)


def test_values_are_drawn_evenly() -> None:
    found = list(given(sampled(12, {"a": ["x", "y", None]})))
    assert sorted(str(one["a"]) for one in found) == ["None"] * 4 + ["x"] * 4 + ["y"] * 4


@drawing(
    method=st.sampled_from(["random", "latin-hypercube"]),
    seed=st.integers(0, 2**32),
    low=st.integers(1, 5),
    width=st.integers(1, 5),
    scale=st.sampled_from(["linear", "log"]),
)
def test_whole_numbers_have_both_ends(
    method: str, seed: int, low: int, width: int, scale: str
) -> None:
    among = {"low": low, "high": low + width, "whole": True, "scale": scale}
    made = sampled(200, {"a": among}, method=method, seed=seed)
    found = [one["a"] for one in given(made)]
    assert set(found) == set(range(low, low + width + 1))
    assert found == [one["a"] for one in given(made)]


def test_another_seed_draws_others() -> None:
    fields = {"a": {"low": 0, "high": 1}}
    one, two = (list(given(sampled(5, fields, seed=seed))) for seed in (0, 1))
    assert one != two


def test_too_many_are_refused_before_they_are_made() -> None:
    many = {"grid": {"a": list(range(1001))}}
    with pytest.raises(InputError, match="vary makes 1,002,001 scenarios, and a sweep takes 1,000"):
        count_of(spec(many, many))
