import pytest

from offsim.cli.probes.base import Found, Group, Probe, examine, fact, missing, refusal, works
from offsim.cli.probes.registry import groups
from offsim.errors import InputError


def raising(error: Exception) -> Probe:
    def look() -> Found:
        raise error

    return Probe("it", look)


def found_by(probe: Probe) -> Found:
    (row,) = examine([Group("group", lambda: [probe])])
    return row.found


def test_rows_are_in_order_even_where_one_waits() -> None:
    first = Group("first", lambda: [Probe("a", lambda: works("x"), beside=True), Probe("b", works)])
    rows = examine([first, Group("second", lambda: [Probe("c", lambda: fact("y", "z"))])])
    shown = [(row.group, row.what, str(row.found), row.found.remedy) for row in rows]
    assert shown == [
        ("first", "a", "works: x", ""),
        ("first", "b", "works", ""),
        ("second", "c", "y", "z"),
    ]
    assert all(row.seconds >= 0 for row in rows)


def test_one_probe_waits_while_others_look() -> None:
    import threading

    looked = threading.Event()

    def waits() -> Found:
        return works() if looked.wait(20) else missing("nobody else looked")

    def other() -> Found:
        looked.set()
        return works()

    rows = examine([Group("g", lambda: [Probe("a", waits, beside=True), Probe("b", other)])])
    assert [row.found for row in rows] == [works(), works()]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (InputError("no x; install x"), missing("no x", "install x")),
        (InputError("no x (a; b); run: pip install x"), missing("no x (a; b)", "pip install x")),
        (InputError("no x"), missing("no x")),
        (RuntimeError("broken\n  twice"), Found("FAILS", "RuntimeError: broken twice")),
        (
            ModuleNotFoundError("No module named 'pysz'", name="pysz"),
            missing("no module pysz", "install offsim again, with all that it requires"),
        ),
        (
            ImportError("libx.so.1: cannot open"),
            Found("FAILS", "ImportError: libx.so.1: cannot open"),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_probe_raises_is_its_row(error: Exception, found: Found) -> None:
    assert found_by(raising(error)) == found


def test_a_long_error_is_cut() -> None:
    here = found_by(raising(ValueError("x" * 999))).here
    assert len(here) == 240
    assert here.endswith("x...")


def test_a_group_without_names_is_a_row() -> None:
    def broken() -> list[Probe]:
        raise ModuleNotFoundError("No module named 'pysz'", name="pysz")

    (row,) = examine([Group("codecs", broken)])
    assert (row.group, row.what, row.found.state) == ("codecs", "codecs", "missing")
    assert row.found.here == "no module pysz"


def test_progress_is_told_of_every_group() -> None:
    told: list[tuple[str, float]] = []
    examine([Group(name, list) for name in "ab"], lambda *what: told.append(what))
    assert told == [("looking at a", 0.0), ("looking at b", 0.5)]


def test_an_error_without_a_remedy_keeps_its_text() -> None:
    assert refusal(InputError("a; b")) == missing("a", "b")


def test_rows_have_names_of_their_own() -> None:
    names = [probe.what for group in groups() for probe in group.probes()]
    assert len(names) == len(set(names)) > 30
