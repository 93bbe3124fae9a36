import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offsim import files
from offsim.errors import FormatError, InputError


class Inner(BaseModel):
    slots: int = Field(ge=0)


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner
    sizes: list[float] = []


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, error: type[BaseException]) -> None:
    with files.replacing(path) as partial:
        partial.write_text("half")
        raise error


def test_replacing_gives_the_name_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with files.replacing(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert not path.exists()
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["out.txt"]


def test_replacing_makes_the_folders(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "out.txt", "x")
    assert (tmp_path / "a" / "b" / "out.txt").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_block_that_raises_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["out.txt"]


def test_block_that_raises_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_half(tmp_path / "out.txt", KeyError)
    assert names_in(tmp_path) == []


def test_operating_system_error_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"out\.txt: cannot be written \(No space left"),
        files.replacing(tmp_path / "out.txt"),
    ):
        raise OSError(28, os.strerror(28))
    assert names_in(tmp_path) == []


def test_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        files.write_text(tmp_path / "out", "x")
    assert names_in(tmp_path) == ["out"]


def test_json_is_sorted_and_ends_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"b": 1, "a": [1.5, "é"]})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert text.index('"a"') < text.index('"b"')
    assert json.loads(text) == {"a": [1.5, "é"], "b": 1}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_is_not_a_number_and_keeps_the_old_file(
    tmp_path: Path, number: float
) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": number})
    assert path.read_text() == "1\n"
    assert names_in(tmp_path) == ["x.json"]


def test_yaml_round_trip_in_the_order_of_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "thing.yaml"
    thing = Thing(name="x: y", inner=Inner(slots=3), sizes=[1.5, 1e-9])
    files.write_yaml(path, thing)
    text = path.read_text()
    assert text.index("name") < text.index("inner") < text.index("sizes")
    assert files.read_yaml(path, Thing) == thing


def test_json_is_read_against_a_schema(tmp_path: Path) -> None:
    path = tmp_path / "thing.json"
    files.write_json(path, {"name": "x", "inner": {"slots": 3}})
    assert files.read_json(path, Thing) == Thing(name="x", inner=Inner(slots=3))


def test_read_text_gives_the_text(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x.txt", "é\n")
    assert files.read_text(tmp_path / "x.txt") == "é\n"


@pytest.mark.parametrize("read", [files.read_yaml, files.read_json])
def test_missing_file_is_named(tmp_path: Path, read: object) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(No such file") as caught:
        read(tmp_path / "none.yaml", Thing)
    assert not isinstance(caught.value, FormatError)
    assert str(tmp_path) in str(caught.value)


def test_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        files.read_text(tmp_path)


def test_bytes_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"x\.yaml: cannot be read \(not UTF-8 text\)"):
        files.read_yaml(tmp_path / "x.yaml", Thing)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: x\ninner: {slots: -1}\n", "inner.slots is -1: "),
        ("name: x\ninner: {slots: many}\n", "inner.slots is 'many': "),
        ("name: x\n", "inner is "),
        ("name: 3\ninner: {slots: 1}\n", "name is 3: "),
        ("name: x\ninner: {slots: 1}\nslot: 7\n", "slot is 7: "),
        ("name: x\ninner: {slots: 1}\nsizes: [1, two]\n", "sizes.1 is 'two': "),
        ("- 1\n", "the whole is [1]: "),
        ("", "the whole is None: "),
    ],
)
def test_field_and_value_are_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "thing.yaml"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        files.read_yaml(path, Thing)
    assert str(caught.value).startswith(f"{path}: {named}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "a: [1", "a: b: c", "\t- x"])
def test_text_that_is_not_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thing.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"thing\.yaml: cannot be parsed") as caught:
        files.read_yaml(path, Thing)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "thing.json").write_text("name: x")
    with pytest.raises(FormatError, match=r"thing\.json: cannot be parsed"):
        files.read_json(tmp_path / "thing.json", Thing)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(FormatError, match="cannot be parsed"):
        files.read_yaml(tmp_path / "x.yaml", Thing)


def test_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValidationError) as caught:
        Inner.model_validate({"slots": "x" * 1000})
    problem = files.first_problem(caught.value)
    assert problem.startswith("slots is 'xxx")
    assert "..." in problem
    assert len(problem) < 200


@pytest.mark.parametrize("name", ["file/x", "x" * 300])
def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        files.write_text(tmp_path / name, "x")
