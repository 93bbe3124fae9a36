"""Compresses the experts of a checkpoint into a folder, on several cores and resumably.

Experts go to processes in order. Each reads and encodes one, says how large it came out, is told
its place in the file of the layer once those before it have theirs, and writes it there itself
while it encodes the next: no payload crosses a process border, and the bytes of a file do not
depend on who was faster. What was killed goes on behind the last whole record of each file.
"""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from offsim.codec.blob import Header
from offsim.codec.folder import INDEX, Index, Job, Layer, check_layer, file_of, write_index
from offsim.codec.layer_file import (
    Expert,
    LayerFile,
    end_of,
    footer,
    layer_head,
    parts_of,
    read_about,
    recovered,
)
from offsim.codec.registry import codec_named
from offsim.errors import FormatError, InputError, RunError
from offsim.policy.bounds import Bounds
from offsim.study.hands import Hand, Hands, Message
from offsim.units import show_bytes, show_seconds

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

WORK = "offsim.study.encoding:compressing"
PARTIAL = ".partial"
OURS = re.compile(rf"(layer-\d+\.blobs|{re.escape(INDEX)})({re.escape(PARTIAL)})?")
Progress = Callable[[str, float], None]
"""Told what is done next and which share of the whole is done, 0..1."""
GO_ON = "give the same command again, which goes on from there"


@dataclass
class _Growing:
    """The file of a layer that is not finished.

    Attributes:
        path: of the file once it is.
        head: with which it begins.
        count: of experts that it will have.
        experts: those that have their place, from the first on.
        written: how many of them are there.
        waiting: who asks for a place, with headers and size in bytes, by expert.
    """

    path: Path
    head: bytes
    count: int
    experts: list[Expert] = field(default_factory=list)
    written: int = 0
    waiting: dict[int, tuple[Hand, list[Header]]] = field(default_factory=dict)

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + PARTIAL)

    @property
    def end(self) -> int:
        return end_of(self.experts[-1]) if self.experts else len(self.head)

    def recover(self) -> None:
        """Keep the whole records that are there, and cut off what follows them."""
        if self.partial.exists():
            self.experts = recovered(self.partial, self.head, self.count)
            self.written = len(self.experts)
        with _written(self.path), self.partial.open("ab") as file:
            file.truncate(self.end if self.experts else 0)
            if not self.experts:
                file.write(self.head)

    def place(self, expert: int, hand: Hand, headers: list[Header]) -> None:
        """Give out the next places as far as all before them have theirs."""
        self.waiting[expert] = hand, headers
        while len(self.experts) in self.waiting:
            hand, headers = self.waiting.pop(len(self.experts))
            hand.say({"path": str(self.partial), "start": self.end})
            self.experts.append(parts_of(headers, self.end))

    def finish(self) -> None:
        """Write the index, bring all onto the disk and give the file its name."""
        with _written(self.path):
            with self.partial.open("r+b") as file:
                file.seek(self.end)
                file.write(footer(self.experts, self.end))
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.partial, self.path)


def compress(
    checkpoint: Path,
    out: Path,
    codec: str,
    bounds: Bounds | None,
    jobs: int,
    tell: Progress = lambda what, share: None,
    note: Callable[[str], None] = lambda text: None,
) -> Index:
    """Compress every expert of a checkpoint.

    A program that calls this does so under `if __name__ == "__main__"`.

    Args:
        checkpoint: folder of a Hugging Face checkpoint (`offsim.model.reader`).
        out: folder; what it has of the same job is kept and not done again.
        codec: name, such as `cuszp:mode=plain`.
        bounds: of every matrix; None for a codec that takes none.
        jobs: processes, at least 1. Each holds a matrix and the blobs of two experts. The bytes do
            not depend on it.
        tell: called with the rate and the time left, and the share that is done.
        note: called with what a reader of the ratio must know.

    Returns:
        What `index.json` says.

    Raises:
        InputError: a file, the codec or a bound cannot be used, the folder is of another job or
            somebody else writes into it, a weight is not finite, or the disk is full.
        RunError: a process died.
    """
    kind = codec_named(codec)
    if (kind.promise == "bound") != (bounds is not None):
        what = "needs a bound" if bounds is None else "takes no bound"
        raise InputError(f"codec {kind} {what}")
    table = None if bounds is None else bounds.model_dump(mode="json")
    about: Message = {"checkpoint": str(checkpoint), "codec": codec, "bounds": table}
    with _alone(out), Hands(jobs, WORK, about) as hands:
        tell("opening the checkpoint", 0.0)
        facts = hands.each[0].hear()
        if facts["note"]:
            note(facts["note"])
        fields = {name: value for name, value in facts.items() if name != "note"}
        job = Job(codec=kind.name, options=kind.options(), bounds=table, **fields)
        growing = _growing(out, job)
        _encode(hands, growing, _Pace(job, growing, tell))
        files = (LayerFile(out / file_of(layer)) for layer in range(job.layers))
        index = Index.of(job, tuple(map(Layer.of, files)))
        with _written(out / INDEX):
            write_index(out, index)
    return index


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Make the folder, and let nobody else write into it meanwhile.

    Raises:
        InputError: it cannot be made, somebody does, or it has other files.
    """
    with _written(out):
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(
                    f"{out}: another `offsim compress` writes there; wait for it, or choose another"
                ) from error
        others = sorted(path.name for path in out.iterdir() if not OURS.fullmatch(path.name))
        if others:
            raise InputError(f"{out}: has {others[0]}, which is none of its files; choose another")
        yield
    finally:
        os.close(handle)


def _growing(out: Path, job: Job) -> dict[int, _Growing]:
    """The files that are not finished, by layer, after a look at those that are.

    Raises:
        InputError: the folder is of another job, or a finished file is damaged.
    """
    unfinished = {}
    for path in sorted(out.glob("layer-*")):
        _check_job(path, out, job)
    for layer in range(job.layers):
        path = out / file_of(layer)
        if path.exists():
            try:
                check_layer(LayerFile(path), job, layer)
            except FormatError as error:
                raise FormatError(f"{error}; remove this file and {GO_ON}") from error
            continue
        with _written(out / INDEX):
            (out / INDEX).unlink(missing_ok=True)  # a folder with an index is finished
        unfinished[layer] = _Growing(path, layer_head(job.about(layer)), job.experts)
        unfinished[layer].recover()
    return unfinished


def _check_job(path: Path, out: Path, job: Job) -> None:
    """Refuse a file of another job; one whose header is not whole is nobody's."""
    try:
        about = read_about(path)
        found = Job.model_validate(about["job"])
    except (FormatError, KeyError, ValueError):
        return
    differs = [
        name
        for name, fields in (
            ("checkpoint", set(Job.model_fields) - {"codec", "options", "bounds"}),
            ("codec", {"codec", "options"}),
            ("bounds", {"bounds"}),
        )
        if found.model_dump(include=fields) != job.model_dump(include=fields)
    ]
    if differs:
        raise InputError(
            f"{out}: {path.name} is of another job ({' and '.join(differs)} differ); choose "
            "another folder"
        )
    layer = about.get("layer")
    if not isinstance(layer, int) or path.name.removesuffix(PARTIAL) != file_of(layer):
        raise InputError(f"{out}: {path.name} is the file of layer {layer}; remove it")


def _encode(hands: Hands, growing: dict[int, _Growing], pace: "_Pace") -> None:
    """Have all be done that is not."""
    tasks = deque(
        (layer, expert)
        for layer, file in growing.items()
        for expert in range(file.written, file.count)
    )
    encoding: dict[Hand, tuple[int, int]] = {}
    writing: dict[Hand, tuple[int, int]] = {}
    with ThreadPoolExecutor(1) as finisher:
        finishing = [
            finisher.submit(file.finish) for file in growing.values() if file.written == file.count
        ]

        def give(hand: Hand) -> None:
            if tasks:
                layer, expert = encoding[hand] = tasks.popleft()
                hand.say({"layer": layer, "expert": expert})
            else:
                hand.say({})

        def written(hand: Hand) -> None:
            if hand not in writing:  # there was none before
                return
            file = growing[writing.pop(hand)[0]]
            file.written += 1
            if file.written == file.count:
                finishing.append(finisher.submit(file.finish))
            pace.one_more()

        give(hands.each[0])
        while encoding or writing:
            for hand in hands.wait():
                message = _heard(hand, encoding.get(hand) or writing.get(hand))
                if "headers" in message:
                    layer, expert = writing[hand]
                    headers = [Header.model_validate(one) for one in message["headers"]]
                    growing[layer].place(expert, hand, headers)
                    continue
                written(hand)
                if hand in encoding:
                    writing[hand] = encoding.pop(hand)
                if "written" not in message:
                    give(hand)
            _raise_what_failed(finishing)
        pace.at_the_end()
        for future in finishing:
            future.result()


def _heard(hand: Hand, over: tuple[int, int] | None) -> Message:
    try:
        return hand.hear()
    except RunError as error:
        where = "at its start"
        if over is not None:
            where = f"over expert {over[1]} of MoE layer {over[0]}"
        raise RunError(f"{error} {where}; {GO_ON}") from error


def _raise_what_failed(finishing: list[Future[None]]) -> None:
    for future in finishing:
        if future.done():
            future.result()


class _Pace:
    """Tells how fast it goes and how long it will take."""

    def __init__(self, job: Job, growing: dict[int, _Growing], tell: Progress) -> None:
        self._bytes, self._tell = job.expert_bytes, tell
        self._all = job.layers * job.experts
        self._left = sum(file.count - file.written for file in growing.values())
        self._done, self._start = 0, time.perf_counter()
        tell("compressing", 1 - self._left / self._all)

    def one_more(self) -> None:
        """Another expert is written."""
        self._done += 1
        self._left -= 1
        each = (time.perf_counter() - self._start) / self._done
        left = show_seconds(self._left * each)
        self._tell(
            f"{show_bytes(self._bytes / each)}/s, {left} left" if self._left else "the last one",
            1 - self._left / self._all,
        )

    def at_the_end(self) -> None:
        """All are written, but perhaps not on the disk."""
        self._tell("waiting for the disk", 1.0)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """What is written in the block.

    Raises:
        InputError: it cannot be.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room or choose another folder, or "
            f"{GO_ON}"
        ) from error
