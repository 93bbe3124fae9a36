from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.errors import FormatError, InputError
from offsim.study.paper.design import entries
from offsim.study.paper.folder import (
    Identity,
    as_array,
    as_text,
    claim,
    outcome_path,
    read_outcome,
)
from offsim.study.paper.plan import FULL, QUICK
from tests.study.paper.made import DEPTH, UNEVEN, made

OWN = Identity(model="a", digest="0" * 16, plan=FULL)


def test_a_folder_is_of_one_design(tmp_path: Path) -> None:
    claim(tmp_path, OWN)
    claim(tmp_path, OWN)
    for other, field in (
        (OWN.model_copy(update={"plan": QUICK}), "mixed 100"),
        (OWN.model_copy(update={"digest": "1" * 16}), "digest 0000"),
    ):
        with pytest.raises(InputError, match=f"its runs have {field}.*choose another folder"):
            claim(tmp_path, other)


def test_a_run_of_another_error_is_refused(tmp_path: Path) -> None:
    cell = made(tmp_path, ("5",), lambda _: 0.5)[0].cell
    other = entries("6", DEPTH)[0].cell
    path = outcome_path(tmp_path, cell.name, 0)
    assert read_outcome(path, cell, 0).error == cell.error
    for asked, seed in ((other, 0), (cell, 1)):
        with pytest.raises(FormatError, match="a run of another error than its name says"):
            read_outcome(path, asked, seed)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(FormatError, match="cannot be parsed"):
        read_outcome(path, cell, 0)


def test_a_run_of_two_errors_is_known_by_both(tmp_path: Path) -> None:
    known = made(tmp_path, ("uneven",), lambda _: 0.5, uneven=UNEVEN)
    one, two = known[1].cell, known[2].cell
    assert (one.error, one.over) != (two.error, two.over)
    path = outcome_path(tmp_path, one.name, 0)
    assert read_outcome(path, one, 0).over == one.over
    with pytest.raises(FormatError, match="a run of another error than its name says"):
        read_outcome(path, two, 0)
    alone = known[0].cell
    path = outcome_path(tmp_path, alone.name, 0)
    path.write_text(path.read_text().replace('"over":null,', ""))  # of before there were two
    assert read_outcome(path, alone, 0).over is None


@given(st.lists(st.booleans(), min_size=1))
def test_truth_survives_the_file(values: list[bool]) -> None:
    assert as_array(as_text(np.array(values))).tolist() == values
