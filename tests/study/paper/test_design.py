import pytest

from offsim.study.paper.design import PARTS, TITLES, Depth, entries
from offsim.study.paper.numbers import PUBLISHED
from offsim.study.paper.sizes import SizePoint, Sizes
from tests.study.paper.made import DEPTH, UNEVEN

TABLES = ("3", "4", "5", "6", "7", "8", "9")


@pytest.mark.parametrize("table", TABLES)
def test_every_number_of_the_paper_has_its_cell(table: str) -> None:
    there = {(entry.part, entry.place, entry.level) for entry in entries(table, DEPTH)}
    assert {key for key in PUBLISHED if key[0] == table} <= there


def test_layers_are_as_deep_as_the_papers_and_groups_are_of_equal_size() -> None:
    scopes = {entry.place: str(entry.cell.error.scope) for entry in entries("6", DEPTH)}
    assert scopes == {"L1": "layer:0", "L13": "layer:4", "L20": "layer:6", "L26": "layer:8"}
    assert {str(e.cell.error.scope) for e in entries("5", DEPTH)} == {
        "top2:layer:0",
        "top2:layer:8",
    }
    assert {str(e.cell.error.scope) for e in entries("5", Depth(26, 64, 6))} == {
        "top6:layer:0",
        "top6:layer:25",
    }


def test_names_are_files_and_tell_cells_apart() -> None:
    cells = {entry.cell for part in PARTS for entry in entries(part, DEPTH, sizes(), UNEVEN)}
    names = {cell.name for cell in cells}
    assert len(names) == len(cells) > 80
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in names)
    assert PARTS.keys() == TITLES.keys()


def test_halves_of_the_experts_have_as_many() -> None:
    assert {str(entry.cell.error.scope) for entry in entries("experts", DEPTH)} == {
        "top4:all",
        "!top4:all",
    }


def test_codecs_have_one_run_and_noise_has_seeds() -> None:
    found = {entry.source: entry.cell.seeds(5) for entry in entries("codecs", DEPTH, sizes())}
    assert found == {"normal": 5, "uniform": 5, "cuszp": 1, "sz3": 1, "rtn-int8": 1}
    assert entries("codecs", DEPTH) == []


def test_codecs_at_an_equal_size_stand_at_the_bits_that_they_meet() -> None:
    found = [entry for entry in entries("codecs", DEPTH, sizes()) if entry.how == "equal size"]
    assert [(entry.source, entry.level) for entry in found] == [
        ("cuszp", 5.0),
        ("sz3", 5.0),
        ("rtn-int8", 8.0),
    ]
    assert found[1].cell.error.bound is not None
    assert found[1].cell.error.bound.value == 0.05


def test_two_bounds_stand_beside_the_one_whose_size_they_have() -> None:
    assert entries("uneven", DEPTH) == []
    found = entries("uneven", DEPTH, uneven=UNEVEN)
    assert [entry.place for entry in found] == [
        "one bound",
        "hot tight, cold loose",
        "cold tight, hot loose",
        "gate and up tight, down loose",
        "down tight, gate and up loose",
    ] * 2
    assert [entry.bits for entry in found[:2]] == [4.0, 4.01]
    assert found[0].cell == next(
        entry.cell
        for entry in entries("codecs", DEPTH, sizes())
        if (entry.source, entry.level, entry.how) == ("cuszp", 0.3, "equal bound")
    )  # one run for both parts
    assert found[0].cell.over is None
    loose, tight = found[1].cell.errors(2)
    assert (str(loose.scope), str(loose.bound), loose.seed) == ("all", "mean-abs:0.6", 2)
    assert (str(tight.scope), str(tight.bound), tight.seed) == ("top4:all", "mean-abs:0.15", 2)
    assert found[1].cell.bound_text == "mean-abs:0.6, mean-abs:0.15 in top4:all"
    assert found[1].cell.seeds(5) == 1


def sizes() -> Sizes:
    return Sizes(
        model="0" * 16,
        weights=800,
        points=(
            SizePoint(source="sz3", alpha=0.1, bytes=400),
            SizePoint(source="cuszp", alpha=0.1, bytes=500, sized_to="cuszp 0.1"),
            SizePoint(source="sz3", alpha=0.05, bytes=501, sized_to="cuszp 0.1"),
            SizePoint(source="rtn-int8", alpha=None, bytes=800, sized_to="rtn-int8"),
        ),
    )
