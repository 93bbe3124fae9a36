from pathlib import Path

import pandas as pd
import pytest

from offsim.study.paper.design import Entry
from offsim.study.paper.results import Results
from offsim.study.paper.takeaways import TAKEAWAYS, takeaways_table, unevenness
from offsim.trace import Trace
from tests.builders import trace_of
from tests.study.paper.made import PLAN, RIGHT, made

PARTS = ("3", "4", "5", "6", "7", "8", "9")
EVEN = trace_of([[[0, 1]] * 9, [[2, 3]] * 9])


def judged(out: Path, trace: Trace = EVEN, **shares: object) -> pd.DataFrame:
    entries = made(out, PARTS, **shares)  # type: ignore[arg-type]
    return takeaways_table(entries, Results(out, PLAN), trace)


def verdicts(table: pd.DataFrame, number: int) -> set[str]:
    return set(table.loc[table["number"] == number, "together"])


def like_the_paper(entry: Entry) -> float:
    """The middle is worst, the deep gains, all experts and larger errors cost more."""
    if entry.place in ("L26", "L17-L26"):
        return RIGHT + 0.03
    harm = 0.1 + 0.3 * entry.level * (entry.part in ("6", "7", "9", "3"))
    return RIGHT - harm * (1.5 if entry.place in ("L13", "L9-L18") else 1.0)


def test_what_the_paper_says_holds_where_it_is_so(tmp_path: Path) -> None:
    table = judged(tmp_path, ica=like_the_paper, pia=lambda entry: RIGHT)
    assert set(table["number"]) == set(range(1, len(TAKEAWAYS) + 1))
    assert verdicts(table, 1) == {"does not hold"}  # every error in the first layer costs much
    assert verdicts(table, 2) == {"holds"}
    assert verdicts(table, 3) == {"holds"}
    fewer = table[(table["number"] == 6) & (table["compared"].str.startswith("L26"))]
    assert set(fewer["verdict"]) == {"cannot be told"}  # ICA cannot exceed PIA
    assert verdicts(table, 8) == {"holds"}


def test_the_same_runs_the_other_way_round_do_not_hold(tmp_path: Path) -> None:
    def reversed_(entry: Entry) -> float:
        return {"L13": RIGHT, "L9-L18": RIGHT}.get(entry.place, RIGHT - 0.2)

    table = judged(tmp_path, ica=reversed_)
    assert verdicts(table, 2) == verdicts(table, 3) == verdicts(table, 8) == {"does not hold"}
    assert verdicts(table, 4) == {"cannot be told"}  # the same answers at every level: no width
    assert verdicts(table, 6) == {"cannot be told"}  # no format is lost, whatever the content
    assert verdicts(table, 7) == {"does not hold"}
    ends = table.drop_duplicates("number").set_index("number")["overall"]
    assert ends.loc[[2, 3, 7, 8]].eq("does not hold").all()
    assert ends.loc[[4, 6]].eq("cannot be told").all()


def test_no_output_is_told(tmp_path: Path) -> None:
    table = judged(tmp_path, ica=lambda entry: 0.01)
    assert verdicts(table, 7) == {"holds"}
    assert set(table.loc[table["number"] == 7, "level"]) == {0.8}  # as it says, and no larger one


def test_the_middle_needs_both_ends(tmp_path: Path) -> None:
    def slope(entry: Entry) -> float:
        return RIGHT - {"L1": 0.4, "L13": 0.2, "L26": 0.0}.get(entry.place, 0.1)

    table = judged(tmp_path, ica=slope)
    single = table[(table["number"] == 2) & (table["part"] == "6")]
    assert set(single["verdict"]) == {"holds", "does not hold"}
    assert set(single["together"]) == {"does not hold"}


def test_what_is_not_measured_is_left_out(tmp_path: Path) -> None:
    entries = made(tmp_path, ("6",), lambda entry: RIGHT)
    table = takeaways_table(entries, Results(tmp_path, PLAN), EVEN)
    assert set(table["part"]) == {"6", "usage"}


def test_uneven_use_is_a_ratio_with_its_interval() -> None:
    assert unevenness(EVEN).mean == pytest.approx(1.0)
    hot = trace_of([[[0, 1]] * 9] * 8 + [[[0, 2]] * 9, [[0, 3]] * 9])
    found = unevenness(hot)
    assert found.mean == pytest.approx(10 / 4.5)  # activations 10, 8, 1, 1
