from pathlib import Path

import pytest
from pydantic import ValidationError

from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    CopyFigures,
    DecoderFigures,
    DeviceFigures,
    DiskFigures,
)
from offsim.errors import FormatError, InputError
from offsim.files import read_yaml, write_yaml
from tests.builders import calibration, codec_figures, figure, sized


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    made = calibration(codec_figures(), codec_figures("sz3", 0.125, blob_bytes=300))
    write_yaml(tmp_path / "c.yaml", made)
    assert read_yaml(tmp_path / "c.yaml", Calibration) == made


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "version is 2"),
        ("cores: 2", "cores: two", "machine.cores is 'two'"),
        ("latency_s: 0.0", "latency_s: -1.0", "link.latency_s is -1.0"),
        ("latency_s: 0.0", "latency_s: .nan", "link.latency_s is nan"),
        ("format: offsim-calibration", "format: other", "format is 'other'"),
        ("dispatch:", "dispatched:", "compute.dispatch"),
        ("model:", "model: [", "cannot be parsed"),
    ],
)
def test_a_broken_file_is_named_with_its_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "c.yaml"
    write_yaml(path, calibration())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        read_yaml(path, Calibration)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_blob_sizes_must_cover_every_expert() -> None:
    with pytest.raises(ValidationError, match="blob_bytes is not 3 x 4"):
        calibration(codec_figures(layers=2))


def test_disk_and_host_are_parts_that_may_be_missing(tmp_path: Path) -> None:
    plain = calibration()
    assert plain.disk is None
    assert plain.compute.host_expert == []
    assert plain.measured
    disk = DiskFigures(label="ESTIMATED", latency_s=1e-4, bytes_per_s=7e9)
    made = plain.model_copy(update={"disk": disk})
    write_yaml(tmp_path / "c.yaml", made)
    assert read_yaml(tmp_path / "c.yaml", Calibration) == made
    assert not made.measured
    guess = sized((1, 0.5))[0]
    guess = guess.model_copy(
        update={"seconds": guess.seconds.model_copy(update={"label": "ESTIMATED"})}
    )
    compute = plain.compute.model_copy(update={"host_expert": [guess]})
    assert not plain.model_copy(update={"compute": compute}).measured


def test_a_device_is_a_part_that_may_be_missing(tmp_path: Path) -> None:
    plain = calibration()
    path = tmp_path / "c.yaml"
    write_yaml(path, plain)
    path.write_text(path.read_text().replace("device: null\n", ""))  # as files were before it
    assert read_yaml(path, Calibration) == plain
    decoder = DecoderFigures(
        decoder="x", codec="cuszp", bound=0.5, blob_bytes=7, ratio=2.0, decode_s=figure(1.0)
    )
    device = DeviceFigures(
        label="MEASURED",
        name="a device",
        copies=[CopyFigures(memory="pageable", channels=2, copies=sized((1, 0.5)))],
        decoders=[decoder],
        left_out=["nvCOMP: not installed"],
    )
    made = plain.model_copy(update={"device": device})
    write_yaml(path, made)
    assert read_yaml(path, Calibration) == made
    assert made.measured
    guessed = device.model_copy(update={"label": "ESTIMATED"})
    assert not plain.model_copy(update={"device": guessed}).measured
    path.write_text(path.read_text().replace("memory: pageable", "memory: swapped"))
    with pytest.raises(FormatError, match=r"device\.copies\.0\.memory is 'swapped'"):
        read_yaml(path, Calibration)


def test_an_expert_has_the_bytes_that_are_said_or_those_of_whole_weights(tmp_path: Path) -> None:
    plain = calibration()
    assert plain.model.expert_bytes == 3 * 1 * 1 * 2
    few = plain.model.model_copy(update={"hidden": 2880, "width": 2880, "stored_bytes": 13_219_200})
    made = plain.model_copy(update={"model": few})
    assert made.model.expert_bytes == 13_219_200
    path = tmp_path / "c.yaml"
    write_yaml(path, made)
    assert read_yaml(path, Calibration) == made
    text = path.read_text()
    said = "  stored_bytes: 13219200\n"
    assert said in text
    path.write_text(text.replace(said, ""))  # as files were before it could be said
    assert read_yaml(path, Calibration).model.expert_bytes == 3 * 2880 * 2880 * 2
    path.write_text(text.replace(said, "  stored_bytes: 0\n"))
    with pytest.raises(FormatError, match=r"model\.stored_bytes is 0"):
        read_yaml(path, Calibration)


def test_unknown_codec_names_what_there_is() -> None:
    with pytest.raises(InputError, match=r"sz3 at bound 0.5 .*it has raw"):
        calibration().codec("sz3", 0.5)


def test_bytes_of_matrices_are_those_of_the_expert(tmp_path: Path) -> None:
    plain = codec_figures(blob_bytes=10)
    parted = plain.model_copy(update={"matrix_bytes": [[[5, 3, 2]] * 4] * 3})
    write_yaml(tmp_path / "c.yaml", calibration(parted, plain))
    read = read_yaml(tmp_path / "c.yaml", Calibration)
    assert [one.matrix_bytes for one in read.codecs] == [[[[5, 3, 2]] * 4] * 3, None]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([[[5, 3, 1]] * 4] * 3, "does not sum to blob_bytes"),
        ([[[5, 3, 2]] * 4] * 2, "does not sum to blob_bytes"),
        ([[[5, 5]] * 4] * 3, "three matrices"),
        ([[[]] * 4] * 3, "three matrices"),
        ([[[11, -1, 0]] * 4] * 3, "three matrices"),
    ],
)
def test_bytes_of_matrices_that_cannot_be(parts: list[list[list[int]]], says: str) -> None:
    fields = codec_figures(blob_bytes=10).model_dump()
    with pytest.raises(ValidationError, match=says):
        CodecFigures.model_validate({**fields, "matrix_bytes": parts})
