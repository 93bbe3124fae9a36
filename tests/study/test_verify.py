import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from offsim.codec.bounded import largest_error
from offsim.codec.expert import encode_expert
from offsim.codec.folder import ExpertFolder, Index, Layer, write_index
from offsim.codec.layer_file import LayerFile, footer, layer_head, parts_of, record_of
from offsim.codec.registry import codec_named
from offsim.errors import InputError, RunError
from offsim.model.reader import open_experts
from offsim.policy.bounds import Rule
from offsim.study import hands
from offsim.study.compress import compress
from offsim.study.verify import verify

from .checkpoints import EXPERTS, LAYERS, TABLE, mixtral_like


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixtral_like(tmp_path_factory.mktemp("verified") / "checkpoint")


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verified") / "out"
    compress(checkpoint, out, "cuszp", TABLE, 1)
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def test_what_is_whole(checkpoint: Path, whole: Path) -> None:
    shares: list[float] = []
    found = verify(whole, checkpoint, 2, lambda what, share: shares.append(share))
    assert found.problems == ()
    assert found.experts == LAYERS * EXPERTS
    assert found.bytes == sum(path.stat().st_size for path in whole.glob("*.blobs"))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    experts, blobs = open_experts(checkpoint), ExpertFolder(whole).blobs()
    assert found.largest_error == max(
        largest_error(before, blobs[layer][expert].decoded(matrix))
        for layer in range(LAYERS)
        for expert in range(EXPERTS)
        for matrix, before in enumerate(experts.matrices(layer, expert))
    )


def test_without_the_checkpoint_there_is_no_error(whole: Path) -> None:
    found = verify(whole, None, 1)
    assert (found.problems, found.largest_error, found.experts) == ((), None, LAYERS * EXPERTS)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_in_any_byte_is_found(whole: Path, data: st.DataObject) -> None:
    path = whole / data.draw(st.sampled_from(sorted(path.name for path in whole.iterdir())))
    before = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    after = bytearray(before)
    after[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(after)
        try:
            found = verify(whole, None, 1).problems
        except InputError as error:  # an index that is not text
            found = (str(error),)
    finally:
        path.write_bytes(before)
    assert len(found) >= 1
    assert path.name in found[0] or path.name == "index.json"


@pytest.mark.parametrize("name", ["index.json", "layer-000.blobs", "layer-001.blobs"])
@pytest.mark.parametrize("size", [None, 0, 0.5, -1])
def test_a_missing_or_cut_file(folder: Path, name: str, size: float | None) -> None:
    path = folder / name
    data = path.read_bytes()
    if size is None:
        path.unlink()
    else:
        path.write_bytes(data[: int(size * len(data))] if size >= 0 else data[:-1])
    (problem,) = verify(folder, None, 1).problems
    assert name in problem


def test_a_foreign_file(folder: Path) -> None:
    (folder / "layer-002.blobs").touch()
    (folder / "notes").mkdir()
    assert verify(folder, None, 1).problems == tuple(
        f"{folder / name}: not a file of this folder" for name in ("layer-002.blobs", "notes")
    )


def test_every_problem_is_told(folder: Path) -> None:
    files = ExpertFolder(folder).files
    for file, expert in ((files[0], 0), (files[1], 2)):
        data = bytearray(file.path.read_bytes())
        data[file.experts[expert][1].start] ^= 1
        file.path.write_bytes(data)
    problems = verify(folder, None, 2).problems
    assert [problem.partition("/layer-")[2] for problem in problems] == [
        "000.blobs: expert 0, matrix 1 is damaged",
        "001.blobs: expert 2, matrix 1 is damaged",
    ]


def forge(folder: Path, checkpoint: Path, used: float, **changes: Any) -> None:
    """Write layer 0 anew under another bound, with headers that say what they like."""
    experts, opened = open_experts(checkpoint), ExpertFolder(folder)
    job, places = opened.index.job, []
    data = layer_head(job.about(0))
    for expert in range(EXPERTS):
        blob = encode_expert(experts.matrices(0, expert), codec_named("cuszp"), used)
        for part in blob.blobs:
            object.__setattr__(part, "header", part.header.model_copy(update=changes))
        places.append(parts_of([part.header for part in blob.blobs], len(data)))
        data += b"".join(bytes(part) for part in record_of(blob))
    path = folder / "layer-000.blobs"
    path.write_bytes(data + footer(places, len(data)))
    files = (Layer.of(LayerFile(file.path)) for file in opened.files)
    write_index(folder, Index.of(job, tuple(files)))


def test_a_promise_that_is_not_kept(folder: Path, checkpoint: Path) -> None:
    forge(folder, checkpoint, 0.01, bound=0.001)
    assert verify(folder, None, 1).problems == ()  # it decodes
    problems = verify(folder, checkpoint, 1).problems
    assert len(problems) == EXPERTS
    assert "expert 0, gate: off by 0.0" in problems[0]
    assert "promised is 0.001" in problems[0]


def test_a_promise_that_is_looser_than_what_was_asked(folder: Path, checkpoint: Path) -> None:
    forge(folder, checkpoint, 0.01)
    problems = verify(folder, checkpoint, 1).problems
    assert len(problems) == EXPERTS
    assert "promised is 0.01, and asked for was 0.001" in problems[0]


def test_a_stream_that_does_not_decode(folder: Path, checkpoint: Path) -> None:
    forge(folder, checkpoint, 0.001, codec="lossless", options={"level": "1"})
    assert "expert 0, gate: lossless: " in verify(folder, None, 1).problems[0]


def test_another_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    other = mixtral_like(tmp_path / "other", experts=EXPERTS + 1)
    with pytest.raises(InputError, match="not the checkpoint that"):
        verify(folder, other, 1)


def test_weights_that_changed_since(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Names and sizes are those of the job, so that only a look at the weights tells."""
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    shard = other / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    weights = tensors["model.layers.0.block_sparse_moe.experts.2.w3.weight"]
    weights[1, 1] += torch.tensor(0.5, dtype=weights.dtype)
    save_file(tensors, shard)
    (problem,) = verify(folder, other, 1).problems
    assert "layer-000.blobs: expert 2, up: off by 0." in problem
    assert "promised is 0.001" in problem


def test_a_worker_that_dies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(hands.Hands):
        def wait(self) -> list[hands.Hand]:
            if self.each[0]._process.is_alive():  # it may have said that it is there before
                os.kill(self.each[0]._process.pid or 0, signal.SIGKILL)
                self.each[0]._process.join()
            return super().wait()

    monkeypatch.setattr("offsim.study.verify.Hands", Killed)
    with pytest.raises(RunError, match="SIGKILL"):
        verify(folder, None, 1)


def test_codecs_that_are_mixed(checkpoint: Path, tmp_path: Path) -> None:
    rules = (Rule(codec="rtn-int8", layers=(0,)), Rule(codec="raw", matrices=("down",)))
    mixed = TABLE.model_copy(update={"rules": (*TABLE.rules, *rules)})
    compress(checkpoint, tmp_path / "out", "cuszp", mixed, 1)
    found = verify(tmp_path / "out", checkpoint, 1)
    assert found.problems == ()
    codecs = {
        blob.header.codec
        for layer in ExpertFolder(tmp_path / "out").blobs()
        for expert in layer
        for blob in expert.blobs
    }
    assert codecs == {"cuszp", "raw", "rtn-int8"}
    with pytest.raises(InputError, match="take codecs that decode in one place"):
        compress(checkpoint, tmp_path / "other", "sz3", mixed, 1)
