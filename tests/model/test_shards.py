import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from offsim.errors import FormatError, InputError, OffsimError
from offsim.model.shards import DTYPES, INDEX, Shards, config_in

A, B = torch.arange(12.0).view(3, 4), torch.arange(6).view(2, 3).bfloat16()


def two_files(folder: Path, **owners: str) -> Path:
    """Tensors `a` and `b` in a file each, and an index, which may say otherwise."""
    save_file({"a": A}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": B}, folder / "model-00002-of-00002.safetensors")
    named = {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    } | owners
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": named}))
    return folder


def refused(folder: Path) -> str:
    """Why a folder is not opened, which is one sentence."""
    with pytest.raises(OffsimError) as told:
        Shards(folder)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


def test_tensors_of_all_files_of_an_index(tmp_path: Path) -> None:
    shards = Shards(two_files(tmp_path))
    assert shards.config == {}
    places = {name: (one.file.name, one.dtype, one.shape) for name, one in shards.tensors.items()}
    assert places == {
        "a": ("model-00001-of-00002.safetensors", "F32", (3, 4)),
        "b": ("model-00002-of-00002.safetensors", "BF16", (2, 3)),
    }
    assert torch.equal(shards.read("a"), A)
    assert torch.equal(shards.read("b"), B)
    assert torch.equal(shards.read("a", 2), A[2])


def test_what_is_read_is_in_memory_of_its_own(tmp_path: Path) -> None:
    shards = Shards(two_files(tmp_path))
    for part in (None, 1):
        shards.read("a", part).zero_()
        assert torch.equal(shards.read("a"), A)
    held = shards.read("a", 1)
    assert held.untyped_storage().nbytes() == 4 * 4


def test_an_index_leaves_other_files_out(tmp_path: Path) -> None:
    save_file({"a": -A}, two_files(tmp_path) / "consolidated.safetensors")
    assert torch.equal(Shards(tmp_path).read("a"), A)


def test_one_file_is_taken_before_others(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    save_file({"a": -A}, tmp_path / "consolidated.safetensors")
    shards = Shards(tmp_path)
    assert list(shards.tensors) == ["a"]
    assert torch.equal(shards.read("a"), A)


def test_files_without_an_index(tmp_path: Path) -> None:
    (two_files(tmp_path) / INDEX).unlink()
    assert sorted(Shards(tmp_path).tensors) == ["a", "b"]
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors: no such file; it is a part" in refused(tmp_path)


def test_the_config_is_there_where_there_is_one(tmp_path: Path) -> None:
    (two_files(tmp_path) / "config.json").write_text('{"model_type": "mixtral"}')
    assert Shards(tmp_path).config == {"model_type": "mixtral"}


def test_what_is_no_folder_of_safetensors(tmp_path: Path) -> None:
    assert "none: no such folder" in refused(tmp_path / "none")
    assert "no .safetensors file in this folder" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert "only pytorch_model.bin, which is a pickle" in refused(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_cut_file_is_named(tmp_path: Path, keep: int) -> None:
    file = two_files(tmp_path) / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file}: not a safetensors file, or a cut one" in refused(tmp_path)


def test_a_tensor_that_is_there_twice(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "x.safetensors")
    save_file({"a": A}, tmp_path / "y.safetensors")
    told = refused(tmp_path)
    assert "y.safetensors: it has the tensor a that x.safetensors has too" in told


def test_a_file_of_the_index_that_is_not_there(tmp_path: Path) -> None:
    two_files(tmp_path, b="model-00003-of-00003.safetensors")
    assert "model-00003-of-00003.safetensors: no such file" in refused(tmp_path)


def test_a_tensor_that_the_index_misplaces(tmp_path: Path) -> None:
    two_files(tmp_path, c="model-00001-of-00002.safetensors")
    assert "model-00001-of-00002.safetensors: it has no tensor c" in refused(tmp_path)


@pytest.mark.parametrize(
    ("owner", "says"),
    [
        ("../a.safetensors", "not the name of a file"),
        ("/a.safetensors", "not the name of a file"),
        ("a.bin", "not a safetensors file"),
        (7, "not the name of a file"),
    ],
)
def test_an_index_names_files_of_its_folder_alone(tmp_path: Path, owner: object, says: str) -> None:
    two_files(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": owner}}))
    assert f"{INDEX}: weight_map.a is {owner!r}, {says}" in refused(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_a_map(tmp_path: Path, text: str) -> None:
    (two_files(tmp_path) / INDEX).write_text(text)
    assert "weight_map is missing" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "cannot be parsed"), ("[]", "a config is a JSON object, not list")],
)
def test_a_config_that_is_no_object(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=says):
        config_in(path)


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    shards = Shards(two_files(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00001-of-00002\.safetensors: no such file"):
        shards.read("a")


def test_a_file_that_has_been_cut_since_is_named(tmp_path: Path) -> None:
    shards = Shards(two_files(tmp_path))
    file = tmp_path / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors: it has been cut"):
        shards.read("b")
    assert torch.equal(shards.read("a"), A)


def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    shards = Shards(two_files(tmp_path))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    (tmp_path / "model-00002-of-00002.safetensors").mkdir()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        shards.read("b")


@pytest.mark.parametrize("name", DTYPES)
def test_each_dtype_comes_as_it_is_stored(tmp_path: Path, name: str) -> None:
    stored = torch.tensor([[0, 1], [1, 0], [1, 1]]).to(DTYPES[name])
    save_file({"first": torch.ones(3), "t": stored}, tmp_path / "model.safetensors")
    shards = Shards(tmp_path)
    assert shards.tensors["t"].dtype == name
    for part in (None, 0, 2):
        found, expected = shards.read("t", part), stored if part is None else stored[part]
        assert found.dtype == expected.dtype
        assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


def test_a_dtype_that_is_not_read(tmp_path: Path) -> None:
    save_file({"t": torch.ones(2, dtype=torch.complex64)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="t is stored as C64; offsim reads F64, "):
        Shards(tmp_path).read("t")


def test_tensors_without_an_axis_or_a_value(tmp_path: Path) -> None:
    tensors = {"number": torch.tensor(2.5), "nothing": torch.empty(0, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(Shards(tmp_path).read(name), tensor)
