from pathlib import Path

import pytest

from offsim.accuracy.comparison import detectable
from offsim.study.paper.comparisons import comparisons_table
from offsim.study.paper.design import Entry, entries
from offsim.study.paper.estimates import base_table, cells_table, tasks_table
from offsim.study.paper.plan import QUESTIONS
from offsim.study.paper.results import Results
from offsim.study.paper.sizes import SizePoint, Sizes
from tests.study.paper.made import DEPTH, PLAN, RIGHT, UNEVEN, made


def by_level(entry: Entry) -> float:
    return RIGHT - 0.2 * entry.level


def test_a_cell_has_its_change_and_the_papers_number(tmp_path: Path) -> None:
    known = made(tmp_path, ("6", "9"), by_level)
    table = cells_table(known, Results(tmp_path, PLAN), None)
    row = table[(table["part"] == "6") & (table["place"] == "L1") & (table["level"] == 0.8)].iloc[0]
    assert row["ica_before"] == pytest.approx(RIGHT, abs=0.005)
    assert row["ica_change"] == pytest.approx(-0.16, abs=0.01)
    assert row["ica_change_low"] < -0.16 < row["ica_change_high"] < 0
    assert (row["items"], row["seeds"]) == (440, 3)
    assert row["kl"] == pytest.approx(0.16)
    assert (row["paper_ica"], row["paper_ica_before"]) == (0.33, 0.86)
    assert row["p"] <= row["p_holm"] < 1e-6
    assert table.loc[table["part"] == "9", "kl"].isna().all()
    assert "PIA unreadable" in set(table["paper_note"])


def test_a_change_is_detectable_where_hardly_an_item_changes(tmp_path: Path) -> None:
    known = made(tmp_path, ("6",), lambda entry: RIGHT)
    table = cells_table(known, Results(tmp_path, PLAN), None)
    least = detectable(440, 0.0)  # of so many items, where none changes
    assert least == pytest.approx(0.018, abs=0.001)
    assert table["detectable"].tolist() == pytest.approx([least] * len(table), rel=1e-4)


def test_tasks_are_cut_out_of_the_items(tmp_path: Path) -> None:
    known = made(tmp_path, ("6",), by_level)
    results = Results(tmp_path, PLAN)
    table = tasks_table(known, results)
    one = table[(table["place"] == "L1") & (table["level"] == 0.8)]
    assert tuple(one["task"]) == QUESTIONS["mixed"]
    cells = cells_table(known, results, None)
    assert one["ica"].mean() == pytest.approx(cells[cells["level"] == 0.8]["ica"].iloc[0], abs=1e-5)
    base = base_table(results, ["mixed"])
    assert base["ica"].iloc[0] == pytest.approx(base["ica"].iloc[1:].mean(), abs=1e-5)


def test_a_cell_without_all_seeds_is_left_out(tmp_path: Path) -> None:
    known = made(tmp_path, ("5",), by_level)
    (tmp_path / "runs" / f"{known[0].cell.name}.2.json").unlink()
    assert len(cells_table(known, Results(tmp_path, PLAN), None)) == len(known) - 1


def test_errors_are_compared_where_they_differ_in_one_thing(tmp_path: Path) -> None:
    harm = {"gate": 0.0, "up": 0.05, "down": 0.1, "hot half": 0.2, "cold half": 0.1}
    harm |= {"normal": 0.3, "uniform": 0.1, "cuszp": 0.1, "sz3": 0.05}

    def ica(entry: Entry) -> float:
        return RIGHT - harm.get(entry.place, harm.get(entry.source, 0))

    known = made(tmp_path, ("matrices", "experts", "real"), ica)
    table = comparisons_table(known, Results(tmp_path, PLAN))
    apart = table.set_index(["part", "first", "second"])["ica_apart"].groupby(level=[0, 1, 2])
    found = apart.mean()
    assert len(table) == 3 * 3 + 3 + 4 * 6
    assert found["matrices", "gate", "down"] == pytest.approx(-0.1, abs=0.01)
    assert found["experts", "hot half", "cold half"] == pytest.approx(0.1, abs=0.01)
    assert found["real", "normal", "sz3"] == pytest.approx(0.25, abs=0.01)
    assert found["real", "cuszp", "sz3"] == pytest.approx(0.05, abs=0.01)
    signs = table[table["second"] == "sz3"]
    assert (signs["ica_low"] <= signs["ica_apart"]).all()
    assert (signs["ica_apart"] <= signs["ica_high"]).all()


def test_bits_that_no_blob_has_are_estimated(tmp_path: Path) -> None:
    points = (
        SizePoint(source="uniform", alpha=0.3, bytes=100, label="ESTIMATED"),
        SizePoint(source="sz3", alpha=0.3, bytes=100),
    )
    sizes = Sizes(model="0" * 16, weights=200, points=points)
    known = made(tmp_path, ("codecs",), by_level, sizes=sizes)
    assert known == entries("codecs", DEPTH, sizes)
    table = cells_table(known, Results(tmp_path, PLAN), sizes)
    own = table[table["level"] == 0.3].set_index("source")
    assert own["bits_label"].to_dict() == {
        "normal": "",
        "uniform": "ESTIMATED",
        "cuszp": "",
        "sz3": "MEASURED",
    }
    assert own.loc["uniform", "bits"] == 4.0


def test_two_bounds_are_held_against_the_one_of_their_size(tmp_path: Path) -> None:
    def ica(entry: Entry) -> float:
        return RIGHT - {"one bound": 0.1, "hot tight, cold loose": 0.05}.get(entry.place, 0.2)

    known = made(tmp_path, ("uneven",), ica, uneven=UNEVEN)
    results = Results(tmp_path, PLAN)
    cells = cells_table(known, results, None).set_index(["place", "level"])
    row = cells.loc[("hot tight, cold loose", 0.3)]
    assert (row["bits"], row["bits_label"], row["seeds"]) == (4.01, "MEASURED", 1)
    assert row["bound"] == "mean-abs:0.6, mean-abs:0.15 in top4:all"
    table = comparisons_table(known, results)
    assert set(table["first"]) == {"one bound"}
    assert len(table) == 4 * 2
    hot = table[table["second"] == "hot tight, cold loose"].iloc[0]
    assert hot["ica_apart"] == pytest.approx(0.05, abs=0.01)
    assert hot["kl_apart"] == pytest.approx(-0.05)
    assert hot["ica_low"] <= hot["ica_apart"] <= hot["ica_high"]
