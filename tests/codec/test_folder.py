from pathlib import Path
from typing import Any

import pytest

from offsim.codec import codec_named
from offsim.codec.expert import encode_expert
from offsim.codec.folder import (
    ExpertFolder,
    Index,
    Job,
    Layer,
    Origin,
    file_of,
    write_index,
)
from offsim.codec.layer_file import LayerFile, end_of, footer, layer_head, parts_of, record_of
from offsim.errors import FormatError, InputError

from .checks import weights_like

JOB = Job(
    source=Origin(config_sha256=None, files={"model.safetensors": 1000}),
    layers=2,
    experts=2,
    hidden=4,
    width=6,
    dtype="bf16",
    stored_bytes=144,
    codec="raw",
    options={},
    bounds=None,
)


def write_layer(folder: Path, layer: int, job: Job = JOB, **changes: Any) -> None:
    shape = {"width": job.width, "hidden": job.hidden} | changes
    up = (shape["width"], shape["hidden"])
    data, places = layer_head(job.about(layer)), []
    for expert in range(job.experts):
        matrices = [weights_like(*one, seed=expert) for one in (up, up, up[::-1])]
        blob = encode_expert(matrices, codec_named("raw"), 0.0)
        places.append(parts_of([part.header for part in blob.blobs], len(data)))
        data += b"".join(bytes(part) for part in record_of(blob))
        assert end_of(places[-1]) == len(data)
    (folder / file_of(layer)).write_bytes(data + footer(places, len(data)))


def index_of(folder: Path, job: Job = JOB) -> Index:
    files = (LayerFile(folder / file_of(layer)) for layer in range(job.layers))
    return Index.of(job, tuple(map(Layer.of, files)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for layer in range(JOB.layers):
        write_layer(tmp_path, layer)
    write_index(tmp_path, index_of(tmp_path))
    return tmp_path


def test_totals(folder: Path) -> None:
    index = ExpertFolder(folder).index
    assert index.stored_bytes == 2 * 2 * 144
    assert index.payload_bytes == 2 * 2 * 144
    assert index.ratio == 1.0
    assert index.bytes == sum(path.stat().st_size for path in folder.glob("*.blobs"))
    assert not (folder / "index.json.partial").exists()


def test_blobs_by_layer_and_expert(folder: Path) -> None:
    blobs = ExpertFolder(folder).blobs()
    assert [len(row) for row in blobs] == [2, 2]
    for row in blobs:
        for expert, blob in enumerate(row):
            before = weights_like(6, 4, seed=expert)
            assert blob.decoded(0).equal(before)
            assert blob.decoded(2).shape == (4, 6)


def test_a_folder_without_an_index_is_unfinished(folder: Path) -> None:
    (folder / "index.json").unlink()
    with pytest.raises(FormatError, match=r"no index\.json"):
        ExpertFolder(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        ExpertFolder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"version": 1', '"version": 2', "version is 2"),
        ('"ratio": 1.0', '"ratio": 2.0', "its checksum"),
        ("{", "[", "cannot be parsed"),
        ("\n}", "}", "its checksum"),
        ('"layers": 2', '"layers": 0', "job.layers is 0"),
    ],
)
def test_an_index_that_was_changed_is_refused(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "index.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError, match=said):
        ExpertFolder(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / file_of(1)).unlink()
    with pytest.raises(FormatError, match=r"layer-001\.blobs: cannot be read"):
        ExpertFolder(folder)


def test_files_that_changed_places(folder: Path) -> None:
    one, other = (folder / file_of(layer) for layer in range(2))
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    with pytest.raises(FormatError, match="not layer 0"):
        ExpertFolder(folder)


def test_a_file_of_the_same_job_that_was_made_anew_with_other_weights(folder: Path) -> None:
    path = folder / file_of(0)
    file = LayerFile(path)
    swapped = [file.experts[0], file.experts[0]]
    start = end_of(file.experts[1])
    path.write_bytes(path.read_bytes()[:start] + footer(swapped, start))
    with pytest.raises(FormatError, match=r"not the file that index\.json is about"):
        ExpertFolder(folder)


def test_experts_of_another_shape(folder: Path) -> None:
    write_layer(folder, 1, hidden=5)
    write_index(folder, index_of(folder))
    with pytest.raises(FormatError, match="another shape"):
        ExpertFolder(folder)


def test_an_index_that_names_other_files(folder: Path) -> None:
    index = index_of(folder)
    layers = tuple(layer.model_copy(update={"file": "../x"}) for layer in index.layers)
    write_index(folder, index.model_copy(update={"layers": layers}))
    with pytest.raises(FormatError, match="does not name a file for each layer"):
        ExpertFolder(folder)


def test_a_flipped_bit_in_any_byte_is_found(tmp_path: Path) -> None:
    """Here without processes; tests/study/test_verify.py has the whole way."""
    job = JOB.model_copy(update={"layers": 1, "experts": 1})
    write_layer(tmp_path, 0, job)
    write_index(tmp_path, index_of(tmp_path, job))

    def look() -> None:
        (file,) = ExpertFolder(tmp_path).files
        file.check_places()
        file.check_record(0)

    look()
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 2
    for path in paths:
        data = bytearray(path.read_bytes())
        for place in range(len(data)):
            data[place] ^= 1 << place % 8
            path.write_bytes(data)
            with pytest.raises((FormatError, InputError)):
                look()
            data[place] ^= 1 << place % 8
        path.write_bytes(data)
    look()
