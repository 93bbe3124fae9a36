"""The file of a sweep: SQLite, a row a scenario. docs/sweep.md has its schema."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import offsim
from offsim.errors import FormatError, InputError
from offsim.record import Metrics
from offsim.record.events import STAGES
from offsim.simulate.needs import Needs
from offsim.study.sweep.scenario import Entry
from offsim.study.sweep.work import Answer

VERSION = 2
APPLICATION = 0x6F667377
"""By which SQLite files of sweeps are known: "ofsw"."""
BUSY_S = 60.0
"""How long one waits for another who writes into the same file."""
STALL = "decode_stall_"
SQL_TYPES: dict[Any, str] = {int: "INTEGER", float: "REAL"}


def _metric_columns() -> dict[str, str]:
    """Name and SQL type of a column for each metric, and for each stage of the stall."""
    columns = {one.name: SQL_TYPES.get(one.type, "TEXT") for one in fields(Metrics)}
    del columns["decode_stall_s"]
    return columns | {_stall(stage): "REAL" for stage in (*STAGES, "hand-over")}


def _stall(stage: str) -> str:
    return f"{STALL}{stage.replace(' ', '_').replace('-', '_')}_s"


RESULTS = _metric_columns() | {one.name: SQL_TYPES[one.type] for one in fields(Needs)}
"""Columns of what is found out of a scenario."""
COLUMNS = {
    "number": "INTEGER PRIMARY KEY",
    "scenario": "TEXT NOT NULL UNIQUE",
    "status": "TEXT NOT NULL CHECK (status IN ('open', 'done', 'refused'))",
    "error": "TEXT",
    "config": "TEXT NOT NULL",
    "trace_sha256": "TEXT NOT NULL",
    "calibration_sha256": "TEXT NOT NULL",
    "offsim": "TEXT NOT NULL",
    "engine": "TEXT NOT NULL",
    "schema": "INTEGER NOT NULL",
    **RESULTS,
}
"""Of the table `scenarios`. What depends on the hour is in `runs` alone."""
SCHEMA = (
    f"CREATE TABLE scenarios ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})",
    "CREATE TABLE runs (started TEXT NOT NULL, seconds REAL NOT NULL, workers TEXT NOT NULL, "
    "answers INTEGER NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
ENTERED = tuple(COLUMNS)[1 : -len(RESULTS)]
ENTER = (
    f"INSERT OR IGNORE INTO scenarios ({', '.join(ENTERED)}) "
    f"VALUES ({', '.join('?' for _ in ENTERED)})"
)
ANSWER = (
    f"UPDATE scenarios SET status = ?, error = ?, {', '.join(f'{name} = ?' for name in RESULTS)} "
    "WHERE scenario = ?"
)


class SweepFile:
    """A file of scenarios and their answers, open for writing.

    Args:
        path: of the file, which is made if there is none.

    Raises:
        InputError: it cannot be written.
        FormatError: it is no such file, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sql = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            with self._told():
                self._prepare()
        except BaseException:
            self._sql.close()
            raise

    def _prepare(self) -> None:
        with self._transaction():
            if not self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in SCHEMA:
                    self._sql.execute(statement)
        check_version(self._sql, self.path)
        # A reader does not wait for who writes, nor who writes for a reader.
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """All is in the one file from then on; what SQLite keeps beside it is gone."""
        self._sql.close()

    def enter(self, entries: Iterable[Entry], engine: str) -> None:
        """Note scenarios that are to be answered, in order, all or none; known ones stay.

        Args:
            entries: scenarios; those with an error are refused by that.
            engine: version of what is going to answer.

        Raises:
            InputError: the file cannot be written; so do all methods here.
        """
        versions = (offsim.__version__, engine, VERSION)
        with self._told(), self._transaction():
            self._sql.executemany(ENTER, (_opened(one) + versions for one in entries))

    def open_keys(self) -> set[str]:
        """Keys of the scenarios that have no answer yet."""
        with self._told():
            found = self._sql.execute("SELECT scenario FROM scenarios WHERE status = 'open'")
            return {key for (key,) in found}

    def counts(self, keys: Iterable[str]) -> dict[str, int]:
        """How many of these scenarios are `open`, `done` and `refused`."""
        with self._told():
            known = dict(self._sql.execute("SELECT scenario, status FROM scenarios"))
        counts = dict.fromkeys(("open", "done", "refused"), 0)
        for key in keys:
            counts[known[key]] += 1
        return counts

    def save(self, answers: Iterable[Answer]) -> None:
        """Keep answers, all or none."""
        with self._told(), self._transaction():
            self._sql.executemany(ANSWER, map(_row, answers))

    def note_run(self, started: datetime, seconds: float, workers: str, answers: int) -> None:
        """Keep when a run was, how long it took, who answered and how much."""
        row = (started.astimezone(UTC).isoformat(timespec="seconds"), seconds, workers, answers)
        with self._told():
            self._sql.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of SQLite and of the file system as a sentence."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise InputError(f"{self.path}: cannot be written ({error})") from error
            raise FormatError(f"{self.path}: not the file of a sweep ({error})") from error
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another"
            ) from error


def _opened(entry: Entry) -> tuple[object, ...]:
    status = "open" if entry.error is None else "refused"
    content = entry.config, entry.trace_sha256, entry.calibration_sha256
    return entry.key, status, entry.error, *content


def _row(answer: Answer) -> tuple[object, ...]:
    if answer.found is None:
        return ("refused", answer.error, *(None for _ in RESULTS), answer.key)
    values: dict[str, Any] = asdict(answer.found.metrics) | asdict(answer.found.needs)
    stalls: Mapping[str, float] = values.pop("decode_stall_s")
    values |= {_stall(stage): seconds for stage, seconds in stalls.items()}
    return ("done", None, *(values[name] for name in RESULTS), answer.key)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file of a sweep through which nothing can be written.

    Raises:
        InputError: there is no such file, or it cannot be read.
        FormatError: it is no such file, or of another version.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of a sweep")
    # Who may write leaves nothing of its own beside the file; who may not finds it as it is.
    own = os.access(path, os.W_OK) and os.access(path.absolute().parent, os.W_OK)
    mode = "mode=rw" if own else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as sql:
            sql.execute("PRAGMA query_only = ON")
            check_version(sql, path)
            yield sql
    except sqlite3.OperationalError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except sqlite3.DatabaseError as error:
        raise FormatError(f"{path}: not the file of a sweep ({error})") from error


def check_version(sql: sqlite3.Connection, path: Path) -> None:
    """Refuse what is no file of a sweep, or one of another version.

    Raises:
        FormatError: it is such a file.
    """
    (application,) = sql.execute("PRAGMA application_id").fetchone()
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise FormatError(f"{path}: not the file of a sweep; give another")
    if version != VERSION:
        raise FormatError(
            f"{path}: version {version} of a sweep, and this offsim has {VERSION}; make it anew"
        )
