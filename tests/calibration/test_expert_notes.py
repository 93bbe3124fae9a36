import json
from pathlib import Path

import pytest

from offsim.calibration.expert_notes import DESIGN, Design, Notes, Point, Row
from offsim.errors import FormatError, InputError

DESIGN_ = Design(
    weights="x",
    layers=2,
    experts=3,
    crc32=7,
    codecs=("raw", "cuszp"),
    bounds=("0.1",),
    repeats=1,
    seed=0,
)
POINT = Point(
    codec="cuszp",
    asked="0.1",
    bound=0.1,
    fallbacks=0,
    stored_bytes=100,
    blob_bytes=30,
    ideal_bits=None,
    largest_error=0.09,
    rmse=0.05,
    copy_s=1e-6,
    encode_s=3e-6,
    decode_s=2e-6,
)


def row(layer: int, expert: int) -> Row:
    return Row(layer=layer, expert=expert, points=(POINT,))


def test_rows_are_there_again(tmp_path: Path) -> None:
    notes = Notes(tmp_path, DESIGN_, Row)
    for one in (row(0, 2), row(1, 0), row(0, 1)):
        notes.add(one)
        assert notes.find(one.layer, one.expert) == one
    again = Notes(tmp_path, DESIGN_, Row)
    assert again.find(0, 2) == row(0, 2)
    assert again.find(0, 1) == row(0, 1)
    assert again.find(1, 0) == row(1, 0)
    assert again.find(1, 1) is None
    assert {path.name for path in tmp_path.iterdir()} == {DESIGN, "experts"}
    assert len((tmp_path / "experts" / "layer-0000.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": "y"}, "with the weights x, not y; give the same or choose another folder"),
        ({"codecs": ("raw",)}, "with the codecs raw, cuszp, not raw"),
        ({"repeats": 3}, "with the repeats 1, not 3"),
    ],
)
def test_another_design_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    Notes(tmp_path, DESIGN_, Row)
    with pytest.raises(InputError, match=says):
        Notes(tmp_path, DESIGN_.model_copy(update=change), Row)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: "),
        (json.dumps({"layer": 0}), "line 2: .*expert"),
        (row(0, 1).model_dump_json().replace("100", "-100"), "line 2: .*stored_bytes is -100"),
        (row(1, 1).model_dump_json(), "line 2 is of layer 1; remove the file"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, says: str) -> None:
    Notes(tmp_path, DESIGN_, Row).add(row(0, 0))
    with (tmp_path / "experts" / "layer-0000.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(FormatError, match=rf"layer-0000\.jsonl: {says}"):
        Notes(tmp_path, DESIGN_, Row).find(0, 0)


def test_a_design_that_is_none(tmp_path: Path) -> None:
    (tmp_path / DESIGN).write_text('{"format": "offsim-expert-sample", "version": 2}')
    with pytest.raises(FormatError, match=r"experts\.json: "):
        Notes(tmp_path, DESIGN_, Row)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        Notes(tmp_path / "file", DESIGN_, Row)
