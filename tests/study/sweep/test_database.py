import math
import sqlite3
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from offsim.errors import FormatError, InputError
from offsim.policy.policy import Policy
from offsim.record import Metrics
from offsim.simulate import predict
from offsim.simulate.needs import needs
from offsim.study.sweep.database import COLUMNS, RESULTS, SweepFile, reading
from offsim.study.sweep.scenario import Entry
from offsim.study.sweep.work import Answer, Found
from tests.builders import TOY

from .made import MACHINE, all_rows

ENTRIES = [Entry(key, '{"policy":{"slots":1}}', "t", "c") for key in "ab"]
WRONG = Entry("x", "{}", "t", "c", "no such thing")
FOUND = Found(predict(TOY, Policy(), MACHINE), needs(MACHINE, Policy()))


def written(path: Path) -> Path:
    with closing(SweepFile(path)) as file:
        file.enter([*ENTRIES, WRONG], "1+abc")
        file.save([Answer("a", FOUND, None)])
    return path


def test_each_metric_has_a_column() -> None:
    assert {field.name for field in fields(Metrics)} - {"decode_stall_s"} <= set(RESULTS)
    assert RESULTS["decode_stall_hand_over_s"] == RESULTS["tpot_s"] == "REAL"
    assert (RESULTS["label"], RESULTS["lookups"]) == ("TEXT", "INTEGER")


def test_rows_keep_their_order_and_come_once(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "s.sqlite")
    with closing(SweepFile(path)) as file:
        assert file.open_keys() == {"b"}
        file.enter([Entry("c", "{}", "t", "c"), *ENTRIES[::-1]], "1+def")
        file.save([Answer("b", None, "refused here")])
        assert file.counts("abx") == {"open": 0, "done": 1, "refused": 2}
    rows = all_rows(path)
    assert [row[:4] for row in rows] == [
        (1, "a", "done", None),
        (2, "b", "refused", "refused here"),
        (3, "x", "refused", "no such thing"),
        (4, "c", "open", None),
    ]
    assert [path.name for path in path.parent.iterdir()] == ["s.sqlite"]


def test_any_tool_reads_it(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite")
    with closing(sqlite3.connect(path)) as sql:
        table = pd.read_sql("SELECT * FROM scenarios", sql)
        (slots,) = sql.execute("SELECT config ->> '$.policy.slots' FROM scenarios").fetchone()
    assert list(table.columns) == list(COLUMNS)
    assert table["tpot_s"][0] == FOUND.metrics.tpot_s
    assert table["decode_stall_link_s"][0] == FOUND.metrics.decode_stall_s["link"]
    assert table["device_bytes"][0] == FOUND.needs.device_bytes
    assert slots == 1


def test_what_is_not_defined_is_null(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite")
    with closing(SweepFile(path)) as file:
        file.save(
            [Answer("b", FOUND._replace(metrics=replace(FOUND.metrics, ttft_s=math.nan)), None)]
        )
    with reading(path) as sql:
        found = sql.execute("SELECT scenario FROM scenarios WHERE ttft_s IS NULL AND error IS NULL")
        assert found.fetchall() == [("b",)]


def test_what_a_run_took_is_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite")
    before = all_rows(path)
    with closing(SweepFile(path)) as file:
        file.note_run(datetime(2026, 1, 2, tzinfo=UTC), 1.5, "somebody", 7)
    with reading(path) as sql:
        runs = sql.execute("SELECT * FROM runs").fetchall()
    assert runs == [("2026-01-02T00:00:00+00:00", 1.5, "somebody", 7)]
    assert all_rows(path) == before


def test_all_entries_are_noted_or_none(tmp_path: Path) -> None:
    with closing(SweepFile(tmp_path / "s.sqlite")) as file:

        def broken() -> object:
            yield ENTRIES[0]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            file.enter(broken(), "1")  # type: ignore[arg-type]
        assert file.open_keys() == set()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = written(tmp_path / "s.sqlite")
    with pytest.raises(InputError, match="attempt to write a readonly"), reading(path) as sql:
        sql.execute("DELETE FROM scenarios")
    assert len(all_rows(path)) == 3


def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    text, other, earlier = (tmp_path / name for name in ("text", "other.sqlite", "earlier.sqlite"))
    text.write_text("not a database, but long enough to be looked at as if it were one\n" * 10)
    with closing(sqlite3.connect(other)) as sql:
        sql.execute("CREATE TABLE a (b)")
    with closing(sqlite3.connect(written(earlier))) as sql:
        sql.execute("PRAGMA user_version = 1")
    for path, says in ((text, "not the file of a sweep"), (other, "not the file of a sweep; give")):
        with pytest.raises(FormatError, match=says), reading(path):
            pass
        with pytest.raises(FormatError, match=says):
            SweepFile(path)
    with pytest.raises(FormatError, match="version 1 of a sweep, and this offsim has 2"):
        SweepFile(earlier)
    with pytest.raises(InputError, match="none: no such file of a sweep"), reading(Path("none")):
        pass
    with pytest.raises(InputError, match="cannot be written"):
        SweepFile(text / "s.sqlite")
