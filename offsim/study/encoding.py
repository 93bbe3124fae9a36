"""What the worker processes of `offsim compress` and `offsim verify` do, one expert at a time."""

import errno
import mmap
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offsim.codec.base import Buffer, Codec
from offsim.codec.blob import DTYPE_NAMES
from offsim.codec.bounded import decode, largest_error
from offsim.codec.bounds import absolute_bounds
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.codec.folder import Job, Origin, file_of
from offsim.codec.layer_file import LayerFile, record_of
from offsim.codec.registry import codec_named
from offsim.errors import CodecError, FormatError, InputError
from offsim.files import read_text
from offsim.model.reader import CheckpointExperts, open_experts
from offsim.model.shards import CONFIG
from offsim.policy.bounds import MATRICES, Bounds, bounds_of, check_one_place, codecs_of
from offsim.study.hands import Message, Talk

ROOM = 1 << 22
"""Bytes that are written at a time."""
DIRECT = getattr(os, "O_DIRECT", 0)


def compressing(talk: Talk, about: Message) -> None:
    """Say what there is, then compress what is asked for until nobody asks.

    While the next expert is encoded, a thread beside says the headers of the one before, is told
    its place in a file once those before that have theirs, and writes it there. That it has done so
    is said by asking for another expert, or at the end.

    Args:
        talk: with `offsim.study.compress`.
        about: `checkpoint`, `codec`, `options`, `bounds`.

    Raises:
        InputError: the checkpoint or the codec cannot be used, or the disk is full.
    """
    experts, codec = _opened(Path(about["checkpoint"])), codec_named(about["codec"])
    bounds = None if about["bounds"] is None else Bounds.model_validate(about["bounds"])
    if bounds is not None:
        bounds.table(experts.shape.layers, experts.shape.experts)  # refuses places not there
        check_one_place(codec, bounds)
    writer, asked = Writer(), talk(_facts(experts))

    def write(blob: ExpertBlob) -> None:
        place = talk({"headers": [one.header.model_dump(mode="json") for one in blob.blobs]})
        writer.write(Path(place["path"]), record_of(blob), place["start"])

    with ThreadPoolExecutor(1) as beside:
        writing = beside.submit(lambda: None)  # there is no expert before the first
        while asked:
            layer, expert = asked["layer"], asked["expert"]
            try:
                blob = _encoded(experts, layer, expert, codec, bounds)
            except InputError as error:
                raise InputError(f"expert {expert} of MoE layer {layer}: {error}") from error
            writing.result()  # from here on the thread says nothing
            asked = talk({})
            writing = beside.submit(write, blob)
            del blob  # gone as soon as it is written
        writing.result()
        talk({"written": True})


def _encoded(
    experts: CheckpointExperts, layer: int, expert: int, codec: Codec, bounds: Bounds | None
) -> ExpertBlob:
    matrices = experts.each_matrix(layer, expert)
    if bounds is None:
        return encode_expert(matrices, codec)
    forms = bounds.of(layer, expert)
    return encode_expert(matrices, codecs_of(forms, codec), bounds_of(forms))


def verifying(talk: Talk, about: Message) -> None:
    """Check and decode what is asked for until nobody asks.

    Args:
        talk: with `offsim.study.verify`.
        about: `folder`, `job`, and `checkpoint` or None.

    Raises:
        InputError: the checkpoint cannot be used, or is another.
    """
    folder, job = Path(about["folder"]), Job.model_validate(about["job"])
    experts = None
    if about["checkpoint"] is not None:
        experts = _opened(Path(about["checkpoint"]))
        check_origin(experts.folder, folder, job)
    asked, opened, file = talk({}), -1, None
    while True:
        layer, expert = asked["layer"], asked["expert"]
        if file is None or layer != opened:
            opened, file = layer, LayerFile(folder / file_of(layer))
        try:
            found = [*_checked(file, expert, job, experts, layer)]
            answer: Message = {"errors": found, "problem": ""}
        except (CodecError, FormatError) as error:
            answer = {"errors": [], "problem": str(error)}
        file.let_go()
        asked = talk(answer)


def _checked(
    file: LayerFile, expert: int, job: Job, experts: CheckpointExperts | None, layer: int
) -> Iterator[float]:
    """Decode the matrices of an expert; the largest error of each where there are originals."""
    originals: Iterable[torch.Tensor] = ()
    asked: list[float | None] = []
    if experts is not None:
        originals = experts.each_matrix(layer, expert)
        if job.bounds is not None:
            forms = Bounds.model_validate(job.bounds).of(layer, expert)
            originals, asked = absolute_bounds(originals, bounds_of(forms))
    each = iter(originals)
    for matrix, blob in enumerate(file.check_record(expert).blobs):
        place = f"{file.path}: expert {expert}, {MATRICES[matrix]}"
        try:
            after = decode(blob)
        except CodecError as error:
            raise FormatError(f"{place}: {error}") from error
        if experts is None:
            continue
        off = largest_error(next(each), after)
        del after  # before the next ones are read
        if not off <= blob.header.bound:
            raise FormatError(f"{place}: off by {off:g}, and promised is {blob.header.bound:g}")
        wanted = asked[matrix] if asked else None
        if wanted is not None and not blob.header.bound <= wanted:
            raise FormatError(
                f"{place}: promised is {blob.header.bound:g}, and asked for was {wanted:g}"
            )
        yield off


def _opened(folder: Path) -> CheckpointExperts:
    """The experts, without the warning of packed weights, which `_facts` hands on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_experts(folder)


def origin_of(checkpoint: Path) -> Origin:
    """What tells a checkpoint from others, without a look at its weights."""
    config = checkpoint / CONFIG
    text = read_text(config).encode() if config.exists() else None
    files = sorted(checkpoint.glob("*.safetensors"))
    return Origin(
        config_sha256=None if text is None else sha256(text).hexdigest(),
        files={file.name: file.stat().st_size for file in files},
    )


def check_origin(checkpoint: Path, folder: Path, job: Job) -> None:
    """Refuse a folder of compressed experts with another checkpoint than its own.

    Args:
        checkpoint: folder of the checkpoint.
        folder: of the experts, for the error.
        job: that it is of.

    Raises:
        InputError: its config, or the names or sizes of its files, differ.
    """
    if origin_of(checkpoint) != job.source:
        raise InputError(
            f"{checkpoint}: not the checkpoint that {folder} was made of; its config or the names "
            "or sizes of its files differ"
        )


def _facts(experts: CheckpointExperts) -> dict[str, Any]:
    """What a job says of a checkpoint, and what a reader of the ratio must know."""
    shape = experts.shape
    return {
        "source": origin_of(experts.folder).model_dump(mode="json"),
        "layers": shape.layers,
        "experts": shape.experts,
        "hidden": shape.hidden,
        "width": shape.width,
        "dtype": DTYPE_NAMES[next(experts.each_matrix(0, 0)).dtype],
        "stored_bytes": experts.stored_bytes,
        "note": experts.note,
    }


class Writer:
    """Writes records into files, past the page cache where that can be.

    New pages of the cache can take as long as encoding, and nobody reads what was just written.
    """

    def __init__(self) -> None:
        # It begins at a page, as direct writes want it. An array is copied into without the GIL.
        self._room = np.frombuffer(mmap.mmap(-1, ROOM), np.uint8)

    def write(self, path: Path, parts: list[Buffer], start: int) -> None:
        """Write at a place of a file that is there.

        Args:
            path: of the file.
            parts: one after the other; together a multiple of `PAGE` bytes.
            start: of the first one in the file, bytes; a multiple of `PAGE`.

        Raises:
            InputError: it cannot be written, as on a full disk.
        """
        try:
            handle = _opened_to_write(path)
            try:
                used = 0
                for part in (np.asarray(memoryview(one)) for one in parts):
                    done = 0
                    while done < len(part):
                        count = min(len(part) - done, ROOM - used)
                        self._room[used : used + count] = part[done : done + count]
                        done, used = done + count, used + count
                        if used == ROOM:
                            self._flush(handle, used, start)
                            start, used = start + used, 0
                self._flush(handle, used, start)
            finally:
                os.close(handle)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); make room and give the same "
                "command again, which goes on from there"
            ) from error

    def _flush(self, handle: int, used: int, start: int) -> None:
        done = 0
        while done < used:
            done += os.pwrite(handle, self._room[done:used].data, start + done)


def _opened_to_write(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system has no direct writes
            raise
    return os.open(path, os.O_WRONLY)
