import math
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offsim.errors import InputError
from offsim.study.sweep import query
from offsim.study.sweep.database import reading
from offsim.study.sweep.drive import sweep
from offsim.study.sweep.executors import in_process
from offsim.study.sweep.plan import planned

from .made import SMALL, prepared

MIXED: dict[str, Any] = {
    **SMALL,
    "vary": [*SMALL["vary"][:1], {"list": [*SMALL["vary"][1]["list"], {"policy.extra": 1}]}],
}


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """32 scenarios, of which 8 are refused."""
    folder = tmp_path_factory.mktemp("query")
    sweep(planned(prepared(folder, MIXED)), folder / "s.sqlite", in_process())
    with reading(folder / "s.sqlite") as connection:
        yield connection


@pytest.fixture(scope="module")
def table(sql: sqlite3.Connection) -> pd.DataFrame:
    return query.rows(sql)


def test_each_field_of_the_config_is_a_column(table: pd.DataFrame) -> None:
    assert len(table) == 32
    assert table["policy.slots"][0] == 1
    assert table["policy.transfer.channels"][0] == 1
    assert set(query.differing(table)) >= {"policy.slots", "policy.cache", "policy.codec"}
    assert "hardware.link.latency_s" in query.differing(table)
    assert "calibration" not in query.differing(table)


CONDITIONS = {
    "policy.slots == 2": lambda t: t["policy.slots"] == 2,
    "policy.cache != 'lru'": lambda t: t["policy.cache"] != "lru",
    "tpot_s < 9.5 and hit_rate >= 0.5": lambda t: (t["tpot_s"] < 9.5) & (t["hit_rate"] >= 0.5),
    "not (policy.slots > 1)": lambda t: t["policy.slots"] <= 1,
    "1 < policy.slots <= 3 or status == 'refused'": lambda t: (
        t["policy.slots"].isin([2, 3]) | (t["status"] == "refused")
    ),
    "hardware.link.latency_s == 0.5": lambda t: t["hardware.link.latency_s"] == 0.5,
    "error == None": lambda t: t["error"].isna(),
    "tpot_s < 100000000000000000000": lambda t: t["tpot_s"] < 1e20,
    "tpot_s > -1": lambda t: t["tpot_s"] > -1,
    "policy.transfer.channels == 1": lambda t: t["policy.transfer.channels"] == 1,
    "label == 'SIMULATED'": lambda t: t["label"] == "SIMULATED",
    "ttft_s == tpot_s": lambda t: (
        (t["ttft_s"] == t["tpot_s"]) | (t["ttft_s"].isna() & t["tpot_s"].isna())
    ),
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_conditions_hold(sql: sqlite3.Connection, table: pd.DataFrame, text: str) -> None:
    expected = list(table["number"][CONDITIONS[text](table)])
    assert list(query.rows(sql, [text])["number"]) == expected
    assert 0 < len(expected) <= 32


def test_all_of_several_conditions_hold(sql: sqlite3.Connection) -> None:
    found = query.rows(sql, ["policy.slots <= 2", "policy.codec == 'raw' or policy.slots == 1"])
    assert len(found) == 2 * 4 + 2 * 2


def test_it_sorts_and_what_has_no_value_comes_last(sql: sqlite3.Connection) -> None:
    found = query.rows(sql, (), ["-tpot_s", "policy.cache"])
    known = found["tpot_s"][:24]
    assert known.notna().all()
    assert found["tpot_s"][24:].isna().all()
    assert known.is_monotonic_decreasing
    assert query.rows(sql, (), ["tpot_s"])["tpot_s"][:24].is_monotonic_increasing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a condition"),
        ("tpot_s", "is not a condition, such as"),
        ("tpot_s = 1", "is not a condition"),
        ("tpot_s < 1; DROP TABLE scenarios", "is not a condition"),
        ("tpot_s < abs(1)", "compares fields with numbers or texts"),
        ("tpot_s in (1, 2)", "is not a condition"),
        ("tpot_s < [1]", "compares fields with numbers or texts"),
        ("speed > 1", "no scenario has a field 'speed'; there are status, error, tpot_s"),
        ("policy.slotz > 1", "no scenario has a field 'policy.slotz'"),
        ("config == ''", "no scenario has a field 'config'"),
        ("hardware > 1", "no scenario has a field 'hardware'"),
        ("(" * 500, "is not a condition"),
        ("a < 1", "no scenario has a field 'a'"),
        ("tpot_s < 1" + "0" * 400, "is not a condition"),
    ],
)
def test_what_is_no_condition_is_refused(sql: sqlite3.Connection, text: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        query.rows(sql, [text])
    assert says in str(refused.value)


def test_an_order_by_what_there_is_not_is_refused(sql: sqlite3.Connection) -> None:
    with pytest.raises(InputError, match="no scenario has a field 'speed'"):
        query.rows(sql, (), ["-speed"])


@given(text=st.text(), number=st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1))
@example(text="' OR 1=1 --", number=math.inf)
def test_values_are_never_sql(sql: sqlite3.Connection, text: str, number: float) -> None:
    query.rows(sql, [f"error == {text!r}"])
    if math.isfinite(number):
        query.rows(sql, [f"tpot_s < {number!r}"])


@given(text=st.text(alphabet="tpos_<=&|() 1.'andornot;-"))
def test_any_text_is_a_condition_or_refused(sql: sqlite3.Connection, text: str) -> None:
    with suppress(InputError):
        query.rows(sql, [text])
