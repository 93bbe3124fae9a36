import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, Rule
from offsim.policy.policy import Policy
from offsim.study.sweep.judged import aims_of, front, with_cost, with_loss
from tests.study.optimize.cases import losses, of_codec

TABLE = Bounds(default=Bound(1.0), rules=(Rule(bound=Bound(0.5), layers=(2,)),))


def rows(*policies: dict[str, Any]) -> pd.DataFrame:
    configs = [{"policy": Policy(**one).model_dump(mode="json")} for one in policies]
    return pd.DataFrame({"config": [json.dumps(config) for config in configs]})


def test_losses_are_those_of_the_sensitivity_by_hand() -> None:
    table = rows(
        {},
        {"codec": "lossless"},
        {"codec": "cuszp", "bound": 0.5},
        {"codec": "cuszp", "bounds": TABLE},
        {"codec": "cuszp", "bound": 2.0},
        {"codec": "rtn-int8"},
    )
    found = with_loss(table, losses())["kl"]  # layers lose 1, 4 and 16 times the square
    assert found.tolist() == pytest.approx(
        [0, 0, 0.25 * 21, 1 + 4 + 0.25 * 16, np.nan, np.nan], nan_ok=True
    )


def test_a_codec_without_a_bound_loses_what_was_measured() -> None:
    known = losses().model_copy(update={"unbounded": (of_codec("rtn-int4", 0.1, 0.2, 0.3),)})
    mixed = Bounds(default=Bound(1.0), rules=(Rule(codec="rtn-int4", layers=(2,)),))
    table = rows({"codec": "rtn-int4"}, {"codec": "cuszp", "bounds": mixed}, {"codec": "rtn-int8"})
    assert with_loss(table, known)["kl"].tolist() == pytest.approx([0.6, 5.3, np.nan], nan_ok=True)


def test_a_sensitivity_of_other_bounds_says_nothing() -> None:
    found = with_loss(rows({"codec": "cuszp", "bound": 0.5}), losses("sigma"))
    assert found["kl"].isna().all()


def test_tokens_cost_what_the_machine_does_by_hand() -> None:
    table = with_cost(pd.DataFrame({"tokens_per_s": [10.0, 100.0]}), 3.6, 500.0)
    assert table["usd_per_mtoken"].tolist() == pytest.approx([100.0, 10.0])
    assert table["joules_per_token"].tolist() == pytest.approx([50.0, 5.0])
    assert "usd_per_mtoken" not in with_cost(table[["tokens_per_s"]], None, 500.0)


@given(
    st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])] * 3), max_size=12),
    st.sampled_from([["a", "b"], ["a", "-b"], ["-c", "a", "b"]]),
)
def test_the_front_is_what_nothing_beats(
    values: list[tuple[float, float, float]], aims: list[str]
) -> None:
    table = pd.DataFrame(values, columns=["a", "b", "c"], dtype=float)
    signs = [-1 if aim.startswith("-") else 1 for aim in aims]
    points = table[[aim.removeprefix("-") for aim in aims]].to_numpy() * signs
    whole = [n for n, point in enumerate(points) if np.isfinite(point).all()]

    def beaten(row: int, other: int) -> bool:
        better = (points[other] <= points[row]).all() and (points[other] < points[row]).any()
        return bool(better) or ((points[other] == points[row]).all() and other < row)

    best = {n for n in whole if not any(beaten(n, other) for other in whole)}
    found = front(table, aims)
    assert set(found.index) == best
    first = points[found.index, 0].tolist()
    assert first == sorted(first)


@pytest.mark.parametrize(
    ("aims", "says"),
    [
        (["a", "kl"], "no column of numbers of this name; give --sensitivity"),
        (["a", "words"], "no column of numbers of this name, such as tpot_s"),
    ],
)
def test_an_aim_without_numbers_is_refused(aims: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        front(pd.DataFrame({"a": [1.0], "words": ["x"]}), aims)


@pytest.mark.parametrize("text", ["tpot_s", "tpot_s,-tpot_s", "", ","])
def test_aims_are_two_or_more(text: str) -> None:
    with pytest.raises(InputError, match="give two aims or more"):
        aims_of(text)
    assert aims_of(" tpot_s, -tokens_per_s") == ["tpot_s", "-tokens_per_s"]
