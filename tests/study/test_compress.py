import fcntl
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from offsim.codec.bounds import Bound
from offsim.codec.folder import ExpertFolder, Index
from offsim.codec.registry import codec_named
from offsim.errors import FormatError, InputError, RunError
from offsim.model.reader import open_experts
from offsim.policy.bounds import Bounds, Rule, bounds_of
from offsim.study import hands
from offsim.study.compress import compress
from offsim.study.encoding import encode_expert

from .checkpoints import EXPERTS, HIDDEN, LAYERS, TABLE, WIDTH, digests, mixtral_like

KILLS = 20
PATIENCE_S = 60.0
NOT_THERE = Bounds(default=Bound(1.0), rules=(Rule(bound=Bound(1.0), layers=(LAYERS,)),))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixtral_like(tmp_path_factory.mktemp("small") / "checkpoint")


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "new" / "out"
    compress(checkpoint, out, "cuszp", TABLE, 1)
    return out


@pytest.fixture
def out(undisturbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(undisturbed, tmp_path / "out"))


def test_blobs_are_those_of_encode(checkpoint: Path, undisturbed: Path) -> None:
    experts, folder = open_experts(checkpoint), ExpertFolder(undisturbed)
    assert len(folder.files) == LAYERS
    for layer, row in enumerate(folder.blobs()):
        assert len(row) == EXPERTS
        for expert, blob in enumerate(row):
            bounds = bounds_of(TABLE.of(layer, expert))
            before = encode_expert(experts.matrices(layer, expert), codec_named("cuszp"), bounds)
            for one, other in zip(before.blobs, blob.blobs, strict=True):
                assert one.to_bytes() == other.to_bytes()


def test_the_index_tells_the_job(checkpoint: Path, undisturbed: Path) -> None:
    index = ExpertFolder(undisturbed).index
    files = {path.name: path.stat().st_size for path in checkpoint.glob("*.safetensors")}
    assert index.job.source.files == files
    assert index.job.codec == "cuszp"
    assert index.job.options == {"mode": "fixed"}
    assert index.job.bounds == TABLE.model_dump(mode="json")
    assert index.job.stored_bytes == 3 * HIDDEN * WIDTH * 2
    assert index.stored_bytes == LAYERS * EXPERTS * index.job.stored_bytes
    assert index.ratio == index.stored_bytes / index.payload_bytes > 1


@pytest.mark.parametrize("jobs", [2, 3])
def test_the_bytes_do_not_depend_on_how_many_work(
    checkpoint: Path, undisturbed: Path, tmp_path: Path, jobs: int
) -> None:
    compress(checkpoint, tmp_path / "out", "cuszp", TABLE, jobs)
    assert digests(tmp_path / "out") == digests(undisturbed)


@pytest.mark.parametrize("codec", ["raw", "sz3", "lossless"])
def test_other_codecs(checkpoint: Path, tmp_path: Path, codec: str) -> None:
    bounds = Bounds(default=Bound(0.5, "sigma")) if codec == "sz3" else None
    index = compress(checkpoint, tmp_path, codec, bounds, 2)
    assert index.job.codec == codec
    assert ExpertFolder(tmp_path).blobs()[1][2].decoded(1).shape == (WIDTH, HIDDEN)


def test_a_finished_folder_is_left_as_it_is(checkpoint: Path, out: Path) -> None:
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.blobs")}
    before = digests(out)
    compress(checkpoint, out, "cuszp", TABLE, 1)
    assert digests(out) == before
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.blobs")} == times


def test_only_what_is_missing_is_done(checkpoint: Path, out: Path, undisturbed: Path) -> None:
    told: list[float] = []
    (out / "layer-001.blobs").unlink()
    kept = (out / "layer-000.blobs").stat().st_mtime_ns
    compress(checkpoint, out, "cuszp", TABLE, 1, lambda what, share: told.append(share))
    assert digests(out) == digests(undisturbed)
    assert (out / "layer-000.blobs").stat().st_mtime_ns == kept
    assert told[1] == 1 / LAYERS  # when it began
    assert told[-1] == 1.0


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 1.0])
def test_a_cut_partial_file_goes_on_to_the_same_bytes(
    checkpoint: Path, out: Path, undisturbed: Path, share: float
) -> None:
    path = out / "layer-001.blobs"
    data = path.read_bytes()
    path.unlink()
    (out / "index.json").unlink()
    path.with_name("layer-001.blobs.partial").write_bytes(data[: int(share * len(data))])
    compress(checkpoint, out, "cuszp", TABLE, 2)
    assert digests(out) == digests(undisturbed)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So large that a kill hits the work more often than not."""
    return mixtral_like(tmp_path_factory.mktemp("large") / "checkpoint", 3, 6, 128, 192)


def begin(checkpoint: Path, out: Path) -> int:
    """Compress in a forked process that leads a group of its own; its workers are forked too."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        hands._context = lambda module: multiprocessing.get_context("fork")  # type: ignore[assignment,return-value]
        for _ in range(1000):
            try:
                compress(checkpoint, out, "cuszp", TABLE, 2)
                os._exit(0)
            except InputError as error:  # forked workers hold the lock until they are dead
                if "another `offsim compress`" not in str(error):
                    raise
                time.sleep(0.005)
    finally:
        os._exit(1)


def ended_well(process: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def written(out: Path) -> int:
    """Bytes that the files of a folder have so far."""
    sizes = 0
    for path in out.glob("layer-*"):
        with suppress(FileNotFoundError):  # it has just got its name
            sizes += path.stat().st_size
    return sizes


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(large: Path, tmp_path: Path) -> None:
    assert ended_well(begin(large, tmp_path / "undisturbed"))
    expected = digests(tmp_path / "undisturbed")
    assert "index.json" in expected
    whole = written(tmp_path / "undisturbed")
    moments, partly = random.Random(0), 0
    for kill in range(KILLS):
        out = tmp_path / str(kill)
        share = moments.random()  # of the bytes: how far the work gets in a time is the machine's
        process = begin(large, out)
        started = time.monotonic()
        while written(out) < share * whole:
            assert time.monotonic() < started + PATIENCE_S, "it has ended, or stands still"
            time.sleep(0.0002)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        partly += bool(list(out.glob("*.blobs*"))) and not (out / "index.json").exists()
        assert ended_well(begin(large, out))
        assert digests(out) == expected
    assert partly >= KILLS // 2  # so that the kills are about something


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codec": "sz3"}, "codec differ"),
        ({"codec": "cuszp:mode=plain"}, "codec differ"),
        ({"bounds": Bounds(default=Bound(0.002))}, "bounds differ"),
        ({"checkpoint": "other"}, "checkpoint differ"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_a_folder_of_another_job_is_refused_and_left(
    checkpoint: Path, out: Path, tmp_path: Path, change: dict[str, Any], said: str, partial: bool
) -> None:
    if partial:
        (out / "index.json").unlink()
        for path in out.glob("*.blobs"):
            path.rename(f"{path}.partial")
    if "checkpoint" in change:
        change = {"checkpoint": mixtral_like(tmp_path / "other", experts=4)}
    asked = {"checkpoint": checkpoint, "codec": "cuszp", "bounds": TABLE} | change
    before = digests(out)
    with pytest.raises(InputError, match=f"of another job .*{said}.*choose another folder"):
        compress(out=out, jobs=1, **asked)
    assert digests(out) == before


def test_a_checkpoint_with_another_config_is_another(
    checkpoint: Path, out: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(checkpoint, tmp_path / "copied"))
    compress(copied, out, "cuszp", TABLE, 1)  # where it lies does not matter
    config = copied / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_theta": 1.0}))
    with pytest.raises(InputError, match="checkpoint differ"):
        compress(copied, out, "cuszp", TABLE, 1)


def test_a_damaged_finished_file_is_named(checkpoint: Path, out: Path) -> None:
    path = out / "layer-000.blobs"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"layer-000\.blobs.*remove this file"):
        compress(checkpoint, out, "cuszp", TABLE, 1)


@pytest.mark.parametrize(
    ("codec", "bounds", "said"),
    [
        ("cuszp", None, "needs a bound"),
        ("raw", TABLE, "takes no bound"),
        ("nothing", TABLE, "no codec is called"),
        ("cuszp", NOT_THERE, "layer 2"),
    ],
)
def test_what_cannot_be_asked_for(
    checkpoint: Path, tmp_path: Path, codec: str, bounds: Bounds | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        compress(checkpoint, tmp_path / "out", codec, bounds, 1)
    assert not list(tmp_path.glob("out/*"))


def test_a_folder_with_other_files_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"has thesis\.tex, which is none of its files"):
        compress(checkpoint, tmp_path, "cuszp", TABLE, 1)


def test_two_do_not_write_into_one_folder(checkpoint: Path, tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another `offsim compress` writes there"):
            compress(checkpoint, tmp_path, "cuszp", TABLE, 1)
    finally:
        os.close(handle)


def test_a_weight_that_is_not_finite_is_named_and_the_rest_kept(tmp_path: Path) -> None:
    source = mixtral_like(tmp_path / "checkpoint")
    shard = source / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.1.block_sparse_moe.experts.1.w2.weight"][3, 4] = torch.nan
    save_file(tensors, shard)
    with pytest.raises(InputError, match=r"expert 1 of MoE layer 1: the weight at \[3, 4\] is nan"):
        compress(source, tmp_path / "out", "cuszp", TABLE, 1)
    assert (tmp_path / "out" / "layer-000.blobs").exists()
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_worker_that_dies_is_told_and_what_is_done_is_kept(
    checkpoint: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill_it(what: str, share: float) -> None:
        if share > 0.4:
            for hand in workers[0].each:
                os.kill(hand._process.pid or 0, signal.SIGKILL)

    workers: list[hands.Hands] = []

    class Watched(hands.Hands):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            workers.append(self)

    monkeypatch.setattr("offsim.study.compress.Hands", Watched)
    with pytest.raises(RunError, match=r"SIGKILL\) over expert . of MoE layer .; give the same"):
        compress(checkpoint, tmp_path, "cuszp", TABLE, 1, kill_it)
    assert not (tmp_path / "index.json").exists()
    compress(checkpoint, tmp_path, "cuszp", TABLE, 1)
    assert digests(tmp_path) == digests(undisturbed)


def test_ctrl_c_leaves_what_goes_on(checkpoint: Path, undisturbed: Path, tmp_path: Path) -> None:
    def interrupt(what: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(checkpoint, tmp_path, "cuszp", TABLE, 2, interrupt)
    assert not (tmp_path / "index.json").exists()
    compress(checkpoint, tmp_path, "cuszp", TABLE, 2)
    assert digests(tmp_path) == digests(undisturbed)


def test_a_folder_that_cannot_be_written_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written") as raised:
        compress(checkpoint, tmp_path / "file" / "out", "cuszp", TABLE, 1)
    assert "\n" not in str(raised.value)


def test_rate_and_time_left_are_told(checkpoint: Path, tmp_path: Path) -> None:
    told: list[str] = []
    index = compress(checkpoint, tmp_path, "cuszp", TABLE, 1, lambda what, share: told.append(what))
    assert isinstance(index, Index)
    assert told[0] == "opening the checkpoint"
    assert all("B/s, " in what and " left" in what for what in told[2:-2])
