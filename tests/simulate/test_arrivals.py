from pathlib import Path

import numpy as np
import pytest

from offsim.errors import InputError
from offsim.simulate.arrivals import arrivals_of, at_once, even, from_csv, poisson


def test_at_once_and_evenly() -> None:
    assert at_once(3).tolist() == [0, 0, 0]
    assert even(4, 10.0).tolist() == [0, 2.5, 5, 7.5]


def test_poisson_by_its_seed_and_rate() -> None:
    arrivals = poisson(4000, 0.5, 3)
    assert (arrivals == poisson(4000, 0.5, 3)).all()
    assert (arrivals != poisson(4000, 0.5, 4)).all()
    gaps = np.diff(arrivals, prepend=0)
    assert (gaps > 0).all()
    # Mean and deviation of an exponential gap are both 2 s; 4000 of them know it to a few %.
    assert gaps.mean() == pytest.approx(2.0, rel=0.05)
    assert gaps.std() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at-once", [0, 0]),
        ("even:24h", [0, 43200]),
        ("even:90", [0, 45]),
        ("even:3m", [0, 90]),
        ("even:1e1s", [0, 5]),
        ("even:2d", [0, 86400]),
        ("poisson:0.5", poisson(2, 0.5, 7).tolist()),
    ],
)
def test_short_texts(text: str, expected: list[float]) -> None:
    assert arrivals_of(text, [0, 10], 7).tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["even:", "even:h", "even:0", "even:-1h", "even:infs", "even:nan", "poisson:x", "poisson:0"],
)
def test_numbers_are_above_zero(text: str) -> None:
    with pytest.raises(InputError, match=r"arrivals .* is not a number above zero"):
        arrivals_of(text, [0, 10])


@pytest.mark.parametrize("text", ["", "now", "poison:0.5", "even", "none.csv", "at-once:3"])
def test_what_is_none_of_them_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"arrivals are at-once, poisson:RATE .* not"):
        arrivals_of(text, [0, 10])


def test_a_file_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text("request,seconds\n10,0\n\n0,2.5\n20,1e3\n")
    assert from_csv(path, [0, 10, 20]).tolist() == [2.5, 0, 1000]
    assert arrivals_of(str(path), [0, 10, 20]).tolist() == [2.5, 0, 1000]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"line 1: the columns are request,seconds"),
        ("seconds,request\n0,0\n", r"line 1: the columns are request,seconds"),
        ("request,seconds\n0,0\n10\n", r"line 3: 1 values where request,seconds are expected"),
        ("request,seconds\n0,0,0\n", r"line 2: 3 values where request,seconds are expected"),
        ("request,seconds\n\nx,0\n", r"line 3: request 'x' is not a whole number"),
        ("request,seconds\n0,later\n", r"line 2: 'later' is not a number of seconds"),
        ("request,seconds\n0,-1\n", r"line 2: '-1' is not a number of seconds"),
        ("request,seconds\n0,nan\n", r"line 2: 'nan' is not a number of seconds"),
        ("request,seconds\n0,inf\n", r"line 2: 'inf' is not a number of seconds"),
        ("request,seconds\n0,0\n5,0\n", r"line 3: there is no request 5 in the trace"),
        ("request,seconds\n0,0\n10,0\n0,1\n", r"line 4: request 0 arrives a second time"),
        ("request,seconds\n0,0\n", r"request 10 of the trace does not arrive"),
        ("request,seconds\n", r"request 0 and 1 more of the trace does not arrive"),
        ('request,seconds\n"0,0\n', r"line 2: unexpected end of data"),
    ],
)
def test_a_wrong_file_is_refused_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"arrivals.csv: {says}"):
        from_csv(path, [0, 10])


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "arrivals.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text"):
        arrivals_of(str(path), [0, 10])
