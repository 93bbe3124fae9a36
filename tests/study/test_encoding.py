import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from offsim.codec.blob import Header
from offsim.codec.expert import encode_expert
from offsim.codec.layer_file import PAGE, LayerFile, end_of, parts_of, record_of
from offsim.codec.registry import codec_named
from offsim.errors import InputError
from offsim.model.reader import open_experts
from offsim.policy.bounds import bounds_of
from offsim.study import encoding
from offsim.study.compress import compress
from offsim.study.encoding import ROOM, Writer, check_origin, origin_of
from offsim.study.hands import Message

from .checkpoints import EXPERTS, LAYERS, TABLE, mixtral_like


def test_parts_are_written_one_after_the_other_at_their_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3 * PAGE)
    parts = [b"ab" * 1000, b"", memoryview(b"c" * (PAGE - 2000))]
    Writer().write(path, parts, PAGE)
    assert path.read_bytes() == b"x" * PAGE + b"".join(parts) + b"x" * PAGE


def test_parts_that_are_longer_than_what_is_written_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    data = np.random.default_rng(0).bytes(2 * ROOM + 3 * PAGE)
    writer = Writer()
    writer.write(path, [data[:100], data[100 : ROOM + 7], data[ROOM + 7 :]], 0)
    writer.write(path, [data[:PAGE]], PAGE)
    assert path.read_bytes() == data[:PAGE] + data[:PAGE] + data[2 * PAGE :]


def test_a_full_disk_is_one_sentence() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(InputError, match=r"No space left on device\); make room") as raised:
        Writer().write(full, [b"x" * PAGE], 0)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Writer().write(tmp_path / "gone", [b"x" * PAGE], 0)
    assert not (tmp_path / "gone").exists()


def test_who_reads_experts_does_without_transformers() -> None:
    """Its memory would be there in every process."""
    code = "import sys, offsim.study.encoding; print('transformers' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


class Placed:
    """Has every expert of layer 0 written into a file; what is said to be written is there."""

    def __init__(self, path: Path) -> None:
        self._path, self._sizes = path, [0]
        self._left = iter(range(EXPERTS))

    def __call__(self, message: Message) -> Message:
        if "headers" in message:
            headers = [Header.model_validate(one) for one in message["headers"]]
            start = self._sizes[-1]
            self._sizes.append(end_of(parts_of(headers, start)))
            return {"path": str(self._path), "start": start}
        assert self._path.stat().st_size == self._sizes[-1]
        if "written" in message:
            raise EOFError
        expert = next(self._left, None)
        return {} if expert is None else {"layer": 0, "expert": expert}


@pytest.mark.parametrize("codec", ["cuszp", "raw"])
def test_an_expert_is_written_before_it_is_said_so(tmp_path: Path, codec: str) -> None:
    checkpoint, path = mixtral_like(tmp_path / "checkpoint"), tmp_path / "file"
    path.touch()
    bounds = TABLE.model_dump(mode="json") if codec == "cuszp" else None
    about = {"checkpoint": str(checkpoint), "codec": codec, "bounds": bounds}
    with pytest.raises(EOFError):
        encoding.compressing(Placed(path), about)
    experts = open_experts(checkpoint)
    blobs = [
        encode_expert(
            experts.matrices(0, expert),
            codec_named(codec),
            bounds_of(TABLE.of(0, expert)) if bounds else 0.0,
        )
        for expert in range(EXPERTS)
    ]
    assert path.read_bytes() == b"".join(part for blob in blobs for part in record_of(blob))


def test_a_full_disk_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise InputError("no room")

    monkeypatch.setattr(Writer, "write", full)
    checkpoint, path = mixtral_like(tmp_path / "checkpoint"), tmp_path / "file"
    path.touch()
    about = {"checkpoint": str(checkpoint), "codec": "raw", "bounds": None}
    with pytest.raises(InputError, match="no room"):
        encoding.compressing(Placed(path), about)


class Asked:
    """Asks for every expert, and keeps what is answered."""

    def __init__(self) -> None:
        self.answers: list[Message] = []
        self._places = iter([(layer, one) for layer in range(LAYERS) for one in range(EXPERTS)])

    def __call__(self, message: Message) -> Message:
        self.answers.append(message)
        layer, expert = next(self._places)
        return {"layer": layer, "expert": expert}


def test_the_index_of_a_file_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, out = mixtral_like(tmp_path / "checkpoint"), tmp_path / "out"
    job = compress(checkpoint, out, "raw", None, 1).job
    opened: list[str] = []

    def counted(path: Path) -> LayerFile:
        opened.append(path.name)
        return LayerFile(path)

    monkeypatch.setattr(encoding, "LayerFile", counted)
    asked = Asked()
    about = {"folder": out, "checkpoint": checkpoint, "job": job.model_dump(mode="json")}
    with pytest.raises(StopIteration):
        encoding.verifying(asked, about)
    assert opened == [f"layer-{layer:03}.blobs" for layer in range(LAYERS)]
    assert asked.answers[1:] == [{"errors": [0.0] * 3, "problem": ""}] * LAYERS * EXPERTS


def test_a_checkpoint_is_told_from_others(tmp_path: Path) -> None:
    checkpoint, out = mixtral_like(tmp_path / "checkpoint"), tmp_path / "out"
    job = compress(checkpoint, out, "raw", None, 1).job
    check_origin(checkpoint, out, job)
    (tmp_path / "checkpoint").rename(tmp_path / "moved")
    check_origin(tmp_path / "moved", out, job)
    (tmp_path / "moved" / "config.json").unlink()
    assert origin_of(tmp_path / "moved").config_sha256 is None
    with pytest.raises(InputError, match=r"moved: not the checkpoint that .*out was made of"):
        check_origin(tmp_path / "moved", out, job)
